"""`fl export RUN`: a run's model as others use it: Keras file, SavedModel, TFLite, or its bare weights."""

import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from filecmp import cmp
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fl_cli import options, runs
from fl_cli.words import size
from fl_common.errors import HeldError, ParterreError, StoreError
from fl_server.store import checkpoints
from fl_server.store.checkpoints import Checkpoint
from fl_server.store.disk.npz import write_npz
from fl_server.store.disk.whole_writes import plainly
from fl_server.store.runs import Run
from fl_server.store.seals import trust as trust_

if TYPE_CHECKING:
    from fl_common.messages.arrays import Arrays
    from fl_common.models.frameworks import keras

MODEL = "model.keras"
EXAMPLES = 3  # of the task's own, on which an export is tried where nothing can be drawn


class Format(StrEnum):
    """What can be written."""

    KERAS = "keras"
    SAVEDMODEL = "savedmodel"
    TFLITE = "tflite"
    WEIGHTS = "weights"


NAMES = {
    Format.KERAS: MODEL,
    Format.SAVEDMODEL: "savedmodel",
    Format.TFLITE: "model.tflite",
    Format.WEIGHTS: "weights.npz",
}


def register(app: typer.Typer) -> None:
    """Add `fl export` to the command line."""
    app.command(name="export")(export)


def export(
    run: runs.Name,
    format_: Annotated[Format, typer.Option("--format", help="What to write.")] = Format.KERAS,
    out: Annotated[
        Path | None, typer.Option(help="File, or directory of a SavedModel.", show_default="in the run")
    ] = None,
    best: Annotated[bool, typer.Option("--best", help="The best round by keep_best instead of the last.")] = False,
    store: runs.Store = runs.STORE,
    trust: options.Trust = False,
) -> None:
    """Write a run's model as a Keras file, a SavedModel, for TFLite, or its weights by variable name (npz)."""
    found = runs.find(run, store)
    path = out or found.directory / (f"best-{NAMES[format_]}" if best else NAMES[format_])
    _check_target(path, format_)
    WRITERS[format_](Source(found, best=best, trusted=trust), path)
    _keep_sum(found, path)
    typer.echo(f"{path} ({size(_size(path))})")


@dataclass(frozen=True)
class Source:
    """What is exported: a run's last model, or that of its best round."""

    run: Run
    best: bool = False
    trusted: bool = False

    @cached_property
    def complete(self) -> Path | None:
        """The run's model.keras, where that is what is exported, and what the run wrote. It is said where it is not."""
        path = self.run.directory / MODEL
        if self.best or self.run.status != "finished" or not path.is_file():
            return None
        if not self.run.files.is_whole(MODEL):
            self._told(f"{path} is damaged: it is not what the run wrote.")
        elif not (self.trusted or self.run.files.mine):
            self._told(f"{trust_.stranger(self.run)} Its {MODEL} is not opened without --trust.")
        else:
            return path
        return None

    def _told(self, why: str) -> None:
        checkpoint = self.run.latest()
        if checkpoint is None:
            raise StoreError(f"{why} There is no checkpoint to take the model from.")
        typer.echo(f"warning: {why} The model is that of the checkpoint of round {checkpoint.round}.", err=True)

    def checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint to export. Raises StoreError where there is no best one."""
        if not self.best:
            return self.run.latest()
        if (checkpoint := self.run.best()) is None:
            measure = self.run.settings.measure_kept()
            counted = measure.metric if measure is not None else ""
            raise StoreError(
                f"run {self.run.name} has no best round by keep_best={counted!r}: no round has that metric. Export the "
                "last one, without --best."
            )
        return checkpoint

    def examples(self) -> Any:
        """Return x of a few examples of the task's, for a model that does not declare its inputs."""
        from fl_common.data.examples import take
        from fl_common.tasks.task import resolve

        task = resolve(self.run.settings)
        found = task.load_test() if task.load_test else task.load_partition(0, max(1, self.run.settings.partitions))[0]
        return take(found, slice(0, EXAMPLES))[0]

    def own_names(self) -> Mapping[str, Any]:
        """Return what the task's module defines, by name: Keras asks for functions of it to load a model."""
        from fl_common.tasks.task import resolve

        function = resolve(self.run.settings).build_model
        return dict(getattr(getattr(function, "func", function), "__globals__", {}))


def load(source: Source) -> "keras.Model":
    """Return a run's model: model.keras of a finished run, otherwise the task's with a checkpoint's weights.

    Raises TaskError where a user's task is needed and cannot be had, StoreError where no round was completed, or where
    the run is somebody else's, is not trusted, and code of it would be run.
    """
    from fl_common.models.frameworks import keras

    run = source.run
    trust_.check(run, trusted=source.trusted, doing="exporting it so")
    problem = _import_task(run)
    if source.complete is not None:
        try:
            return keras.saving.load_model(source.complete)
        except Exception as error:
            problem = problem or _rebuild_reason(run, error)
            if isinstance(problem, ParterreError):
                raise problem from error
    elif problem is not None:
        raise problem
    return _rebuilt(source)


def _import_task(run: Run) -> ParterreError | None:
    """Import the run's task, so that the classes it registers with Keras are known; return what prevents it."""
    from fl_common.tasks.task import resolve

    try:
        resolve(run.settings)
    except ParterreError as error:
        return error
    return None


def _rebuild_reason(run: Run, error: Exception) -> ParterreError | None:
    """Return None where a checkpoint can stand in for a model.keras that Keras does not load."""
    if checkpoints.numbers(run.directory / "checkpoints"):
        return None
    return StoreError(f"{run.directory / MODEL} cannot be loaded: {type(error).__name__}: {error}")


def _rebuilt(source: Source) -> "keras.Model":
    from fl_common.models.weights import assign
    from fl_common.tasks.task import build, resolve

    run, checkpoint = source.run, source.checkpoint()
    if checkpoint is None:
        raise StoreError(f"run {run.name} has no model yet: no round was completed. Continue it with `fl resume`.")
    model = build(resolve(run.settings), run.settings.seed)
    assign(model, checkpoint.arrays)
    return model


def _keras(source: Source, path: Path) -> None:
    complete = source.complete
    if complete is not None:
        if path.resolve() != complete.resolve():
            _whole(path, lambda part: _copy(complete, part))
        return
    from fl_server.models.exports import inputs, keras_format

    model = load(source)
    takes, own = inputs.inputs_of(model, source.examples), source.own_names()
    _whole(path, lambda part: keras_format.write(model, takes, part, own))


def _copy(complete: Path, part: Path) -> None:
    shutil.copyfile(complete, part)
    if not cmp(complete, part, shallow=False):
        raise StoreError(f"the copy of {complete} differs from it. Is the disk all right? Export it again.")


def _saved_model(source: Source, path: Path) -> None:
    from fl_server.models.exports import inputs, saved_model

    model = load(source)
    takes = inputs.inputs_of(model, source.examples)
    _whole(path, lambda part: saved_model.write(model, takes, part))


def _tflite(source: Source, path: Path) -> None:
    from fl_server.models.exports import inputs, tflite

    model = load(source)
    if tflite.compute_in_float32(model):
        typer.echo("note: the TFLite file computes in float32.", err=True)
    content, batch = tflite.convert(model, inputs.inputs_of(model, source.examples))
    if batch is not None:
        typer.echo("note: the TFLite file takes one example at a time.", err=True)
    _whole(path, lambda part: part.write_bytes(content))


def _weights(source: Source, path: Path) -> None:
    checkpoint = source.checkpoint()
    if checkpoint is not None:
        arrays = checkpoint.arrays
    else:
        from fl_common.models.weights import weights_of

        arrays = weights_of(load(source))
    _whole(path, lambda part: _write_weights(part, arrays))


def _write_weights(part: Path, arrays: "Arrays") -> None:
    import numpy as np

    as_bytes = write_npz(part, arrays)
    for kind in sorted(set(as_bytes.values())):
        typer.echo(
            f"note: npz has no {kind}: such arrays stand in it as unsigned integers of the same bytes.", err=True
        )
    with np.load(part) as stored:
        if any(stored[name].tobytes() != np.asarray(array).tobytes() for name, array in arrays.items()):
            raise StoreError(
                f"{part.name} does not hold what was written to it. Is the disk all right? Export it again."
            )


WRITERS: dict[Format, Callable[[Source, Path], None]] = {
    Format.KERAS: _keras,
    Format.SAVEDMODEL: _saved_model,
    Format.TFLITE: _tflite,
    Format.WEIGHTS: _weights,
}


def _check_target(path: Path, format_: Format) -> None:
    if format_ is Format.KERAS and path.suffix != ".keras":
        raise StoreError(f"a Keras file is expected to end in .keras; got {path}. Name it so with --out.")
    if format_ is not Format.SAVEDMODEL and path.is_dir():
        raise StoreError(f"{path} is a directory; expected the name of a file. Name one with --out.")
    strange = path.is_file() or (path.is_dir() and any(path.iterdir()) and not (path / "saved_model.pb").is_file())
    if format_ is Format.SAVEDMODEL and strange:
        raise StoreError(f"{path} exists and is no SavedModel; expected a new or empty directory. Name it with --out.")


def _whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Have `write` write a file or directory beside `path`, then put it in its place: a reader sees all or nothing."""
    with plainly(f"write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}.") as directory:
            part = Path(directory) / path.name
            write(part)
            if path.is_dir():
                shutil.rmtree(path)
            part.replace(path)


def _keep_sum(run: Run, path: Path) -> None:
    """Keep the sum of what was written into the run itself, unless another process writes that now."""
    if path.is_file() and path.resolve().parent == run.directory.resolve():
        with suppress(HeldError), run.lock():
            run.files.keep_sums(path.name)


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())
