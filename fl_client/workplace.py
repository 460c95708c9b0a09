"""Where a client works: its models, traced once, and its data, read once. Between a parsed message and training."""

import logging

from fl_client.job import Home, Job
from fl_client.training import EvaluateResult, LocalTrainer, TrainResult
from fl_common.arrays import Arrays, decode_record
from fl_common.errors import RejectedReply, TaskError
from fl_common.examples import Examples, count
from fl_common.fit import check_fit
from fl_common.settings import Settings
from fl_common.task import DataOptions, Task, resolve

log = logging.getLogger(__name__)

PARTITIONS_KEPT = 4
DESKS_KEPT = 2


class Workplace:
    """Does jobs. What one run needs is kept for its next message; of several runs, that of the latest two."""

    def __init__(self) -> None:
        self._desks: dict[tuple[Settings, Home], Desk] = {}

    def train(self, job: Job) -> TrainResult:
        """Train the job's model on its partition. Raises ParterreError, or what a user's code raises."""
        desk = self._desk(job)
        train, _ = desk.data(job.partition, job.partitions)
        return desk.trainer.train(desk.arrays(job), train, round=job.round, client=job.client, mu=job.mu)

    def evaluate(self, job: Job) -> EvaluateResult:
        """Evaluate the job's model on its partition's validation part. Raises as `train` does."""
        desk = self._desk(job)
        _, validation = desk.data(job.partition, job.partitions)
        return desk.trainer.evaluate(desk.arrays(job), validation)

    def _desk(self, job: Job) -> "Desk":
        key = (job.settings, job.home)
        desk = self._desks.pop(key, None) or Desk(job.settings, job.home)
        self._desks[key] = desk
        while len(self._desks) > DESKS_KEPT:
            self._desks.pop(next(iter(self._desks)))
        return desk


class Desk:
    """A task with its trainer and the partitions used last."""

    def __init__(self, settings: Settings, home: Home) -> None:
        self.task = _task(settings, home)
        self._own = bool(home.data)
        self.trainer = LocalTrainer(self.task, settings)
        self._data: dict[tuple[int, int], tuple[Examples, Examples]] = {}

    def arrays(self, job: Job) -> Arrays:
        """Return the job's arrays as views. Raises TaskError where they are not those of this client's model."""
        try:
            return decode_record(job.arrays, self.trainer.signature)
        except RejectedReply as error:
            raise TaskError(
                f"the server's model is not this client's: {error.detail}. Use one task and model on all sides."
            ) from error

    def data(self, partition: int, partitions: int) -> tuple[Examples, Examples]:
        """Return (train, validation), loaded and checked against the model the first time. Raises DataError."""
        key = (partition, partitions)
        data = self._data.pop(key, None) or self._load(partition, partitions)
        self._data[key] = data
        while len(self._data) > PARTITIONS_KEPT:
            self._data.pop(next(iter(self._data)))
        return data

    def _load(self, partition: int, partitions: int) -> tuple[Examples, Examples]:
        train, validation = self.task.load_partition(partition, partitions)
        check_fit(self.trainer.model, train)
        check_fit(self.trainer.model, validation)
        whose = "own data" if self._own else f"partition {partition} of {partitions}"
        log.info("%s: %d examples to train on, %d to evaluate on", whose, count(train), count(validation))
        return train, validation


def _task(settings: Settings, home: Home) -> Task:
    chosen = settings.model_copy(update={"task": home.task}) if home.task else settings
    options = DataOptions(label=home.label) if home.label else None
    return resolve(chosen, data=home.data, data_options=options, trusted=bool(home.task) or not home.resident)
