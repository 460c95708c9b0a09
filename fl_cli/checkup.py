"""What would go wrong with a task and its data, found in seconds: each step that a run takes, on two batches."""

import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fl_common.errors import ExportError, ParterreError, TaskError
from fl_common.settings.schema import Settings
from parterre.trial import explained

BATCHES, CLIENTS = 2, 3
CLOSE = 1e-4  # how far weights of a simulated client may be from a deployed one's after two batches


@dataclass(frozen=True)
class Found:
    """What came of one step: a line for a person. `exit_code` is 0 where runs do not suffer from it.

    An export that a model has not is such a thing: `missing`.
    """

    step: str
    text: str
    seconds: float
    exit_code: int = 0
    missing: bool = False


class Checkup:
    """The steps, each on what those before it left. Without `data` it is partition 0 of CLIENTS that is tried."""

    def __init__(self, settings: Settings, data: str = "", label: str = "") -> None:
        self._settings = settings.model_copy(update={"local_epochs": 1})
        self._path, self._label = data, label
        self._steps: list[tuple[str, Callable[[], str]]] = [
            ("task", self._task),
            ("model", self._model),
            ("data", self._data),
            ("test set", self._test),
            ("deployed", self._deployed),
            ("simulated", self._simulated),
            ("evaluation", self._evaluation),
            *((f"export {name}", self._exporter(name)) for name in ("keras", "savedmodel", "tflite")),
        ]

    def run(self) -> Iterator[Found]:
        """Yield what each step came to; the last one that is needed for the others and fails ends it."""
        for step, check in self._steps:
            began, missing = time.perf_counter(), False
            try:
                text, code = check(), 0
            except ExportError as error:
                text, code, missing = str(error), 0, True
            except ParterreError as error:
                text, code = str(error), error.exit_code
            except Exception as error:  # noqa: BLE001  a person's own code may raise anything
                text, code = explained(error, self._settings.task), TaskError.exit_code
            yield Found(step, text, time.perf_counter() - began, code, missing)
            if code and not step.startswith("export"):
                return

    def _task(self) -> str:
        from fl_common.tasks.task import resolve

        self._resolved = resolve(self._settings)
        parts = ("load_test", "callbacks", "prepare", "class_weight")
        more = [name for name in parts if getattr(self._resolved, name) is not None]
        return f"{self._settings.task}: build_model, load_partition{''.join(f', {name}' for name in more)}"

    def _model(self) -> str:
        from fl_client.training.trainer import LocalTrainer
        from fl_common.models.weights import weights_of

        self._trainer = LocalTrainer(self._resolved, self._settings)
        self._arrays = weights_of(self._trainer.model)
        model = self._trainer.model
        compute = model.dtype_policy.compute_dtype
        precision = "" if compute == "float32" else f", computes in {compute}"
        return f"{model.count_params():,} parameters in {len(self._arrays)} arrays{precision}"

    def _data(self) -> str:
        from fl_common.data.examples import count, take
        from fl_common.models.data_check import check_fit

        train, validation = self._parts()
        for part in (train, validation):
            check_fit(self._trainer.model, part)
        size = min(count(train), BATCHES * self._settings.batch_size)
        self._train = take(train, slice(0, size))
        self._validation = take(validation, slice(0, min(count(validation), size)))
        whose = self._path or f"partition 0 of {CLIENTS}"
        return f"{whose}: {count(train)} examples to train, {count(validation)} to validate; x {_shapes(train[0])}"

    def _parts(self) -> Any:
        if not self._path:
            return self._resolved.load_partition(0, CLIENTS)
        from fl_client.own_data import OwnData
        from fl_common.tasks.task import DataOptions, with_class_weights

        own = OwnData(self._path, DataOptions(self._label or DataOptions.label))
        train, validation = own.divided(self._settings, self._resolved.prepare)
        return with_class_weights(self._resolved, train, "own data"), validation

    def _test(self) -> str:
        from fl_common.data.examples import count
        from fl_common.tasks.task import checked_test

        if self._resolved.load_test is None:
            return "none: rounds are evaluated on the clients' validation parts alone"
        return f"{count(checked_test(self._resolved, self._trainer.model))} examples"

    def _deployed(self) -> str:
        held = self._validation if self._resolved.callbacks else None
        result = self._trainer.train(self._arrays, self._train, round=1, client=0, validation=held)
        self._update = result.arrays
        _refuse_infinite(result.arrays)
        return f"two batches train as on a client: {_told(result.metrics)}"

    def _simulated(self) -> str:
        import numpy as np

        from fl_common.data.examples import count
        from fl_simulation.engine.data.pool import resident
        from fl_simulation.engine.ways.ways import Choice
        from fl_simulation.engine.work import TrainingCohort
        from fl_simulation.engine.workers import Workers

        told: list[Any] = []
        choice = Choice(self._trainer, self._settings.engine, Workers(1), told.append)
        rows = [np.arange(count(self._train), dtype=np.int32)]
        cohort = TrainingCohort.of(
            1, [0], rows, batch_size=self._settings.batch_size, epochs=1, seed=self._settings.seed,
            held=lambda client: self._validation,
        )  # fmt: skip
        weights = [self._arrays[name] for name in self._trainer.names]
        outcome = choice.train(weights, cohort, resident(self._train), mu=0.0, mean=False)
        apart = max(
            float(np.max(np.abs(outcome.arrays[name][0] - value), initial=0.0))
            for name, value in self._update.items()
            if name in outcome.arrays and value.dtype.kind == "f"
        )
        if apart > CLOSE:
            raise TaskError(
                f"fl simulate trains other weights than fl up: they differ by {apart:.2g} after two batches. Set "
                "engine=keras, or look for what is drawn at random outside of Keras in the model."
            )
        return f"the same weights, to {apart:.0e}, by engine={choice.name} ({told[-1]['reason']})"

    def _evaluation(self) -> str:
        from fl_common.data.examples import count

        if count(self._validation) == 0:
            return "no validation example: such a client trains only"
        return _told(self._trainer.evaluate(self._update, self._validation).metrics)

    def _exporter(self, name: str) -> Callable[[], str]:
        def export() -> str:
            from fl_cli import export
            from fl_cli.words import size
            from fl_server.store.checkpoints import Checkpoint
            from fl_server.store.runs import Run

            with (
                TemporaryDirectory(prefix="fl-check-") as folder,
                redirect_stdout(StringIO()),
                redirect_stderr(StringIO()),
            ):
                run = Run.create(Path(folder) / "run", self._settings)
                with run.lock():
                    run.commit(Checkpoint(1, self._update), {"event": "round", "round": 1})
                format_ = export.Format(name)
                path = Path(folder) / export.NAMES[format_]
                export.WRITERS[format_](export.Source(run, trusted=True), path)
                files = path.rglob("*") if path.is_dir() else [path]
                return size(sum(each.stat().st_size for each in files if each.is_file()))

        return export


def _refuse_infinite(arrays: Any) -> None:
    import numpy as np

    for name, value in arrays.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise TaskError(f"after two batches {name} is not finite: lower the learning rate, or look at the data")


def _shapes(x: Any) -> str:
    from fl_common.data.examples import leaves

    return ", ".join(f"{array.dtype} {tuple(array.shape[1:])}" for array in leaves(x))


def _told(metrics: dict[str, float]) -> str:
    from fl_cli.words import measure

    return "  ".join(f"{name} {measure(value)}" for name, value in metrics.items())
