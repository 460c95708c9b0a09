"""Where a client works: its models, traced once, and its data, read once. Between a parsed message and training."""

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace

from fl_client.job import Home, Job
from fl_client.own_data import OwnData
from fl_client.training.trainer import EvaluateResult, LocalTrainer, TrainResult
from fl_common.data.examples import Examples, count
from fl_common.errors import ParterreError, RejectedReply, Shown, TaskError
from fl_common.messages.arrays import Arrays, decode_record
from fl_common.models.data_check import check_fit
from fl_common.models.frameworks import keras
from fl_common.settings.schema import Settings
from fl_common.tasks.client_data.data_names import Schema, hashed
from fl_common.tasks.task import DataOptions, Task, build, resolve, with_class_weights
from fl_common.trust.disclosure import type_of

log = logging.getLogger(__name__)

PARTITIONS_KEPT = 4
DESKS_KEPT = 2

Part = tuple[int, int, tuple[str, ...]]  # partition, partitions, and the order of a table's columns


class Workplace:
    """Does jobs. What one run needs is kept for its next message; of several runs, that of the latest two."""

    def __init__(self, stop: threading.Event | None = None) -> None:
        self._stop = stop
        self.salt: bytes | None = None  # of the hashes that stand for this client's names at the server
        self._own: dict[Home, OwnData] = {}
        self._desks: dict[tuple[Settings, Home], TaskInUse] = {}

    def examine(self, home: Home) -> Schema:
        """Read a client's own data, check them against its own task's model, and return what they are called.

        Raises ParterreError where they cannot be used, Interrupted where the client was told to stop meanwhile.
        """
        own = self._own_data(home)
        if own is None:
            return Schema()
        settings = Settings()
        task = _task(settings, home, own) if home.task else None
        parts = own.divided(settings, task.prepare if task else None)
        if task is not None:
            model = _built(task, settings)
            for part in parts:
                check_fit(model, part)
        return own.schema

    def own_names(self, names: Sequence[str], home: Home) -> list[str]:
        """Return what a server's names, which may be hashes, are called here."""
        own = self._own_data(home)
        if self.salt is None or own is None:
            return list(names)
        known = {hashed(name, self.salt): name for name in own.schema.names()}
        return [known.get(name, name) for name in names]

    def _with_own_names(self, job: Job) -> Job:
        columns = (name for name in self.own_names(job.columns, job.home) if name != job.settings.id_column)
        return replace(job, columns=tuple(columns)) if job.columns else job

    def _own_data(self, home: Home) -> OwnData | None:
        if home.data and home not in self._own:
            options = DataOptions(home.label or DataOptions.label, home.ignore)
            self._own[home] = OwnData(home.data, options, self._stop)
        return self._own.get(home)

    def train(self, job: Job) -> TrainResult:
        """Train the job's model on its partition. Raises ParterreError, or what a user's code raises."""
        job = self._with_own_names(job)
        desk = self._desk(job)
        train, validation = desk.data(job)
        result = desk.trainer.train(
            desk.arrays(job), train, round=job.round, client=job.client, mu=job.mu, validation=validation
        )
        _tell(job, "trained", result)
        return result

    def evaluate(self, job: Job) -> EvaluateResult:
        """Evaluate the job's model on its partition's validation part. Raises as `train` does."""
        job = self._with_own_names(job)
        desk = self._desk(job)
        _, validation = desk.data(job)
        result = desk.trainer.evaluate(desk.arrays(job), validation)
        _tell(job, "evaluated", result)
        return result

    def _desk(self, job: Job) -> "TaskInUse":
        key = (job.settings, job.home)
        desk = self._desks.pop(key, None) or TaskInUse(job.settings, job.home, self._own_data(job.home))
        self._desks[key] = desk
        while len(self._desks) > DESKS_KEPT:
            self._desks.pop(next(iter(self._desks)))
        return desk


class TaskInUse:
    """A task with its trainer and the partitions used last."""

    def __init__(self, settings: Settings, home: Home, own: OwnData | None) -> None:
        self.task = _task(settings, home, own)
        self._own, self._settings = own, settings
        if own is not None:
            own.read(settings.id_column, self.task.prepare)  # what cannot be read needs no model
        self.trainer = LocalTrainer(self.task, settings)
        self._data: dict[Part, tuple[Examples, Examples]] = {}

    def arrays(self, job: Job) -> Arrays:
        """Return the job's arrays as views. Raises TaskError where they are not those of this client's model."""
        try:
            return decode_record(job.arrays, self.trainer.signature)
        except RejectedReply as error:
            raise TaskError(
                "the server's model is not this client's: {detail}. Use one task and model on all sides.",
                detail=Shown(error.detail),
            ) from error

    def data(self, job: Job) -> tuple[Examples, Examples]:
        """Return (train, validation), loaded and checked against the model the first time. Raises DataError."""
        key = (0, 0, job.columns) if self._own else (job.partition, job.partitions, ())
        data = self._data.pop(key, None) or (self._load_own(job) if self._own else self._load(job))
        self._data[key] = data
        while len(self._data) > PARTITIONS_KEPT:
            self._data.pop(next(iter(self._data)))
        return data

    def _load(self, job: Job) -> tuple[Examples, Examples]:
        train, validation = self.task.load_partition(job.partition, job.partitions)
        return self._checked(train, validation, f"partition {job.partition} of {job.partitions}")

    def _load_own(self, job: Job) -> tuple[Examples, Examples]:
        assert self._own is not None  # noqa: S101
        train, validation = self._own.divided(self._settings, self.task.prepare, job.columns)
        try:
            train = with_class_weights(self.task, train, "own data")
            return self._checked(train, validation, "own data")
        except ParterreError as error:
            self._own.refuse(error)
            raise
        finally:
            self._own.release()

    def _checked(self, train: Examples, validation: Examples, whose: str) -> tuple[Examples, Examples]:
        check_fit(self.trainer.model, train)
        check_fit(self.trainer.model, validation)
        log.info("%s: %d examples to train on, %d to evaluate on", whose, count(train), count(validation))
        return train, validation


def _tell(job: Job, done: str, result: TrainResult | EvaluateResult) -> None:
    loss = result.metrics.get("loss")
    told = f"loss {loss:.4f}" if loss is not None else "no loss"
    log.info("round %d: %s on %d examples: %s, %.2f s", job.round, done, result.examples, told, result.seconds)


def _task(settings: Settings, home: Home, own: OwnData | None) -> Task:
    chosen = settings.model_copy(update=home.paths() | ({"task": home.task} if home.task else {}))
    task = resolve(chosen, trusted=bool(home.task) or not home.resident)
    if own is None:
        return task
    return replace(task, load_partition=lambda *_: own.divided(settings, task.prepare), share=None)


def _built(task: Task, settings: Settings) -> keras.Model:
    try:
        return build(task, settings.seed)
    except ParterreError:
        raise
    except Exception as error:
        raise TaskError(
            "the model of task {task} cannot be built: {kind}: {error}",
            task=task.name,
            kind=Shown(type_of(error)),
            error=error,
        ) from error
