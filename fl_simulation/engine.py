"""The engine: it answers a round's messages by training their clients in bulk. Behind the grid, before the ways.

Data are held once, a cohort is trained in as few programs as memory allows, and, where the strategy takes a plain
weighted mean, the mean is taken inside the program.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from logging import getLogger
from typing import Any

import numpy as np
from flwr.app import Context, Message, MessageType, MetricRecord, RecordDict
from numpy.typing import NDArray

from fl_client.job import Job
from fl_client.training import LocalTrainer
from fl_common.arrays import Arrays, decode_record, encode, is_float
from fl_common.errors import ParterreError, RejectedReply, TaskError
from fl_common.settings import Settings
from fl_common.task import resolve
from fl_common.tensors import as_metrics
from fl_common.together import Member, Together
from fl_simulation.evaluation import Evaluations
from fl_simulation.grid import failure
from fl_simulation.memory import GB, clients_at_once
from fl_simulation.one_by_one import OneByOne
from fl_simulation.pool import TRAIN, VALIDATION, Pool, pool_of
from fl_simulation.ways import Choice
from fl_simulation.work import Cohort, Outcome
from strategies.fedavg import FedAvg
from strategies.registry import find
from strategies.replies import WEIGHT

log = getLogger(__name__)

Asked = list[tuple[Message, Job]]
Announce = Callable[[Mapping[str, Any]], object]


class BatchedEngine:
    """One task's clients, all of them, in this process.

    announce: is told, as events, which way was chosen and why. Raises TaskError where the way set by hand cannot train
    the model.
    """

    def __init__(
        self, settings: Settings, announce: Callable[[Mapping[str, Any]], object] = lambda event: None
    ) -> None:
        self.settings = settings
        self.announce = announce
        self.task = resolve(settings)
        self.trainer = LocalTrainer(self.task, settings)
        self.choice = Choice(self.trainer, settings.engine, lambda event: self.announce(event))
        self._mean = takes_mean(settings.strategy)
        self._evaluations = Evaluations(self.trainer)
        self._pools: dict[int, Pool] = {}
        self._context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={})

    def answer(self, messages: Sequence[Message]) -> Iterator[Message]:
        """Yield the replies, those of clients that fail first. One reply may stand for many clients."""
        groups: dict[Any, Asked] = {}
        for message in messages:
            try:
                job = Job.of(message, self._context)
            except ParterreError as error:
                yield failure(message, error)
                continue
            key = (message.metadata.message_type, job.round, job.mu, job.partitions, id(job.arrays))
            groups.setdefault(key, []).append((message, job))
        for (kind, *_), asked in groups.items():
            yield from self._answer(kind, asked)

    def pool(self, partitions: int) -> Pool:
        """Return the data of all clients, of whom there are `partitions`. Raises DataError where it cannot be had."""
        if partitions not in self._pools:
            limit = self.settings.memory_gb * GB / 4
            self._pools[partitions] = pool_of(self.task, self.trainer, partitions, limit)
        return self._pools[partitions]

    def _answer(self, kind: str, asked: Asked) -> Iterator[Message]:
        if kind not in (MessageType.TRAIN, MessageType.EVALUATE):
            error = TaskError(f"simulated clients train and evaluate; got a message of type {kind!r}")
            yield from (failure(message, error) for message, _ in asked)
            return
        pool = self.pool(asked[0][1].partitions)
        wrong = pool.wrong([job.partition for _, job in asked])
        good = [(message, job) for message, job in asked if job.partition not in wrong]
        yield from (failure(message, wrong[job.partition]) for message, job in asked if job.partition in wrong)
        if good:
            arrays = self._arrays(good[0][1])
            yield from (self._train if kind == MessageType.TRAIN else self._evaluate)(good, arrays, pool)

    def _arrays(self, job: Job) -> Arrays:
        try:
            return decode_record(job.arrays, self.trainer.signature)
        except RejectedReply as error:
            raise TaskError(f"the server's model is not the simulated clients': {error.detail}") from error

    def _train(self, asked: Asked, arrays: Arrays, pool: Pool) -> Iterator[Message]:
        settings, weights = self.settings, [arrays[name] for name in self.trainer.names]
        first = asked[0][1]
        start = 0
        while start < len(asked):
            # Rows, not data, are needed to know how many fit, unless each client's data are its own.
            some = asked[start : start + self._at_once(asked[start : start + 1], pool)]
            data, rows = pool.part([job.partition for _, job in some], TRAIN)
            began = time.perf_counter()
            cohort = Cohort.of(
                first.round,
                [job.client for _, job in some],
                rows,
                batch_size=settings.batch_size,
                epochs=settings.local_epochs,
                seed=settings.seed,
            )
            yield from self._trained(some, weights, cohort, data, first.mu, began)
            start += len(some)

    def _at_once(self, asked: Asked, pool: Pool) -> int:
        data, _ = pool.part([job.partition for _, job in asked], TRAIN)
        self.choice.prepare(data)
        together = self.choice.name != OneByOne.name and self.choice.name != "loop"
        return clients_at_once(
            self.trainer.model, data, self.settings.batch_size, self.settings.memory_gb, together=together
        )

    def _trained(
        self, asked: Asked, weights: list[Any], cohort: Cohort, data: Any, mu: float, began: float
    ) -> Iterator[Message]:
        try:
            outcome = self.choice.train(weights, cohort, data, mu=mu, mean=self._mean)
        except ParterreError:
            raise
        except Exception as error:  # noqa: BLE001  a client's data may make a program raise: it costs that client alone
            if len(cohort) == 1:
                yield failure(asked[0][0], error)
                return
            log.warning("a cohort could not be trained at once, so its clients train one by one: %s", error)
            for place in range(len(cohort)):
                alone = slice(place, place + 1)
                yield from self._trained(asked[alone], weights, cohort.part(alone), data, mu, began)
            return
        seconds = (time.perf_counter() - began) / len(cohort)
        metrics = [_metrics(outcome, place, seconds) for place in range(len(cohort))]
        examples = [int(number) for number in cohort.examples]
        if self._mean:
            yield from _as_one(asked, outcome, examples, metrics)
        else:
            for place, (message, _) in enumerate(asked):
                own = {name: value[place] for name, value in outcome.arrays.items()}
                yield _reply(message, own, examples[place], metrics[place])

    def _evaluate(self, asked: Asked, arrays: Arrays, pool: Pool) -> Iterator[Message]:
        began = time.perf_counter()
        data, rows = pool.part([job.partition for _, job in asked], VALIDATION)
        results = self._evaluations.evaluate(arrays, rows, data)
        seconds = (time.perf_counter() - began) / len(asked)
        for (message, _), mine, metrics in zip(asked, rows, results, strict=True):
            record = MetricRecord({WEIGHT: len(mine), **metrics, "seconds": seconds})
            yield Message(RecordDict({"metrics": record}), reply_to=message)


def takes_mean(strategy: str) -> bool:
    """Say whether a strategy takes the clients' plain weighted mean, and looks at no reply alone."""
    kind = find(strategy)
    return issubclass(kind, FedAvg) and kind.aggregate_train is FedAvg.aggregate_train


def _as_one(asked: Asked, outcome: Outcome, examples: list[int], metrics: list[dict[str, float]]) -> Iterator[Message]:
    """Yield one reply for all clients whose weights are finite, and one for each other, to be rejected."""
    good = np.flatnonzero(outcome.finite)
    for place in np.flatnonzero(~outcome.finite):
        lost = {name: _nothing(value) for name, value in outcome.arrays.items()}
        yield _reply(asked[place][0], lost, examples[place], metrics[place])
    if len(good):
        members = [Member(asked[place][0].metadata.message_id, examples[place], metrics[place]) for place in good]
        total = MetricRecord({WEIGHT: sum(examples[place] for place in good)})
        content = RecordDict({"arrays": encode(outcome.arrays), "metrics": total})
        yield Together(content, asked[good[0]][0], members)


def _nothing(array: NDArray[Any]) -> NDArray[Any]:
    return np.full_like(array, np.nan) if is_float(array.dtype) else array


def _reply(message: Message, arrays: Arrays, examples: int, metrics: Mapping[str, float]) -> Message:
    record = MetricRecord({WEIGHT: examples, **metrics})
    return Message(RecordDict({"arrays": encode(arrays), "metrics": record}), reply_to=message)


def _metrics(outcome: Outcome, place: int, seconds: float) -> dict[str, float]:
    own = as_metrics({name: values[place] for name, values in outcome.metrics.items()})
    return {**own, "seconds": seconds}
