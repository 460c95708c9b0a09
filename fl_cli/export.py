"""`fl export RUN`: a run's model as others use it: Keras file, SavedModel, TFLite, or its bare weights."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fl_cli import runs
from fl_cli.words import size
from fl_common.errors import ParterreError, StoreError
from fl_server import checkpoints
from fl_server.checkpoints import Checkpoint
from fl_server.disk import plainly
from fl_server.runs import Run

if TYPE_CHECKING:
    from fl_common.lean import keras

MODEL = "model.keras"


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
) -> None:
    """Write a run's model as a Keras file, a SavedModel, for TFLite, or its weights by variable name (npz)."""
    found = runs.find(run, store)
    path = out or found.directory / (f"best-{NAMES[format_]}" if best else NAMES[format_])
    _check_target(path, format_)
    WRITERS[format_](Source(found, best=best), path)
    typer.echo(f"{path} ({size(_size(path))})")


@dataclass(frozen=True)
class Source:
    """What is exported: a run's last model, or that of its best round."""

    run: Run
    best: bool = False

    @property
    def complete(self) -> Path | None:
        """The run's model.keras, where that is what is exported."""
        path = self.run.directory / MODEL
        return path if not self.best and self.run.status == "finished" and path.is_file() else None

    def checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint to export. Raises StoreError where there is no best one."""
        if not self.best:
            return self.run.latest()
        if (checkpoint := self.run.best()) is None:
            raise StoreError(
                f"run {self.run.name} has no best round by keep_best={self.run.settings.keep_best!r}: no round has "
                "that metric. Export the last one, without --best."
            )
        return checkpoint


def load(run: Run, *, best: bool = False) -> "keras.Model":
    """Return a run's model: model.keras of a finished run, otherwise the task's with the newest checkpoint's weights.

    `best` takes the weights of the best round. Raises TaskError where a user's task is needed and cannot be had,
    StoreError where no round was completed.
    """
    from fl_common.lean import keras

    source = Source(run, best)
    problem = _import_task(run)
    if source.complete is not None:
        try:
            return keras.saving.load_model(run.directory / MODEL)
        except Exception as error:
            problem = problem or _rebuild_reason(run, error)
            if isinstance(problem, ParterreError):
                raise problem from error
    elif problem is not None:
        raise problem
    return _rebuilt(source)


def _import_task(run: Run) -> ParterreError | None:
    """Import the run's task, so that the classes it registers with Keras are known; return what prevents it."""
    from fl_common.task import resolve

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
    from fl_common.task import build, resolve
    from fl_common.weights import assign

    run, checkpoint = source.run, source.checkpoint()
    if checkpoint is None:
        raise StoreError(f"run {run.name} has no model yet: no round was completed. Continue it with `fl resume`.")
    model = build(resolve(run.settings), run.settings.seed)
    assign(model, checkpoint.arrays)
    return model


def _keras(source: Source, path: Path) -> None:
    complete = source.complete
    if complete is None:
        _whole(path, lambda part: load(source.run, best=source.best).save(part))
    elif path.resolve() != complete.resolve():
        _whole(path, lambda part: shutil.copyfile(complete, part))


def _saved_model(source: Source, path: Path) -> None:
    model = load(source.run, best=source.best)
    _whole(path, lambda part: model.export(part, verbose=False))


def _tflite(source: Source, path: Path) -> None:
    from fl_common.lean import tf

    model = load(source.run, best=source.best)
    with TemporaryDirectory() as directory:
        model.export(directory, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(directory)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
        converted = converter.convert()
    _whole(path, lambda part: part.write_bytes(converted))


def _weights(source: Source, path: Path) -> None:
    checkpoint = source.checkpoint()
    if checkpoint is not None:
        arrays = checkpoint.arrays
    else:
        from fl_common.weights import weights_of

        arrays = weights_of(load(source.run))
    _whole(path, lambda part: checkpoints.write_npz(part, arrays))


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


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())
