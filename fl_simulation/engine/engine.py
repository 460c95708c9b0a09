"""The engine: it answers a round's messages by training their clients in bulk. Behind the grid, before the ways.

Data are held once, a cohort is trained in as few programs as memory allows, and, where the strategy takes a plain
weighted mean, the mean is taken inside the program.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from logging import getLogger
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict

from fl_client.job import Job
from fl_client.training.trainer import LocalTrainer
from fl_common.errors import ParterreError, RejectedReply, TaskError
from fl_common.messages.arrays import Arrays, decode_record
from fl_common.models.frameworks import tf
from fl_common.settings.schema import Settings
from fl_common.tasks.task import checked_test, resolve
from fl_simulation.attacks.hostile_clients import alters_updates
from fl_simulation.engine.answers import TrainedClients, one_by_one, together
from fl_simulation.engine.data.ahead import Ahead, Forecast, Order, Ready
from fl_simulation.engine.data.label_noise import mislabelled
from fl_simulation.engine.data.pool import TRAIN, VALIDATION, Pool, pool_of
from fl_simulation.engine.evaluation import Evaluations
from fl_simulation.engine.memory_bound import GB, clients_at_once
from fl_simulation.engine.test_set_evaluation import TestSet
from fl_simulation.engine.ways.one_by_one import OneByOne
from fl_simulation.engine.ways.vectorized import Vectorized
from fl_simulation.engine.ways.ways import Choice
from fl_simulation.engine.workers import Workers
from fl_simulation.grid import failure
from strategies.fedavg import FedAvg
from strategies.registry import find
from strategies.replies import WEIGHT

log = getLogger(__name__)

Asked = list[tuple[Message, Job]]
Announce = Callable[[Mapping[str, Any]], object]


class BatchedEngine:
    """One task's clients, all of them, in this process.

    announce: is told, as events, which way was chosen and why. workers: by default as many as the threads that
    TensorFlow takes for one operation leave room for. Raises TaskError where the way set by hand cannot train the
    model.
    """

    def __init__(
        self,
        settings: Settings,
        announce: Callable[[Mapping[str, Any]], object] = lambda event: None,
        workers: Workers | None = None,
    ) -> None:
        self.settings = settings
        self.announce = announce
        self.task = resolve(settings)
        self.trainer = LocalTrainer(self.task, settings)
        self.workers = workers or Workers.of_this_process(settings.workers)
        self.choice = Choice(self.trainer, settings.engine, self.workers, lambda event: self.announce(event))
        each = settings.max_update_norm or settings.metric_limits  # limits that the server looks at each reply for
        self._mean = takes_mean(settings.strategy) and not (alters_updates(settings) or each)
        self._evaluations = Evaluations(self.trainer, self.workers)
        self._pools: dict[int, Pool] = {}
        self._ahead = Ahead(settings, self.pool)
        self._forecast = Forecast(settings)
        self._fit: int | None = None  # clients that fit in memory at once
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
            pool = pool_of(self.task, self.trainer, partitions, limit)
            self._pools[partitions] = mislabelled(pool, self.trainer.model, self.settings, partitions)
        return self._pools[partitions]

    def check(self, partitions: int) -> None:
        """Raise what would end a run in its first round: data that cannot be split so, or memory for no client."""
        pool = self.pool(partitions)
        if not pool.wrong([0]):
            data, _ = pool.part([0], TRAIN)
            self.choice.prepare(data)
            clients_at_once(self.trainer.model, data, self.settings, together=True)

    def test(self) -> Callable[[Arrays], Mapping[str, float]] | None:
        """Return the evaluation on the task's test set; None where it has none."""
        if self.task.load_test is None:
            return None
        return TestSet(self.trainer, self.workers, checked_test(self.task, self.trainer.model)).evaluate

    def sizes(self, messages: Sequence[Message]) -> list[int]:
        """Return how many examples each message's client would work on; 0 where that cannot be told."""
        which = TRAIN if messages[0].metadata.message_type == MessageType.TRAIN else VALIDATION
        leases = [_lease(message) for message in messages]
        whole = max(partitions for _, partitions in leases)
        if not whole:
            return [0] * len(messages)
        return self.pool(whole).counts([partition for partition, _ in leases], which)

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
        weights = [tf.convert_to_tensor(arrays[name]) for name in self.trainer.names]
        first, trained = asked[0][1], []
        orders = self._orders(asked, pool)
        for place, (order, messages) in enumerate(orders):
            began = time.perf_counter()
            ready = self._ahead.take(order)
            following = orders[place + 1][0] if place + 1 < len(orders) else None
            self._ahead.begin(partial(self._guess, order, following, len(messages)))
            for result in self._trained(messages, weights, ready, first.mu, began):
                if isinstance(result, Message):
                    yield result
                elif self._mean:
                    trained.append(result)
                else:
                    yield from one_by_one(result)
        if trained:
            yield from together(trained, arrays)

    def _orders(self, asked: Asked, pool: Pool) -> list[tuple[Order, list[Message]]]:
        """Return the clients in as many orders as memory demands."""
        first, fit = asked[0][1], self._at_once(asked[0][1], pool)
        orders = []
        for start in range(0, len(asked), fit):
            some = asked[start : start + fit]
            clients, partitions = zip(*((job.client, job.partition) for _, job in some), strict=True)
            order = Order(first.round, clients, partitions, first.partitions)
            orders.append((order, [message for message, _ in some]))
        return orders

    def _guess(self, order: Order, following: Order | None, fit: int) -> Order | None:
        """Return what is asked for next, where training leaves Python's lock to another thread."""
        if self.choice.name == OneByOne.name:
            return None
        if following is not None:
            return following
        clients = self._forecast.cohort(order.round + 1, order.of)
        some = tuple(clients[:fit])
        return Order(order.round + 1, some, some, order.of) if some else None

    def _at_once(self, job: Job, pool: Pool) -> int:
        if self._fit is None:
            data, _ = pool.part([job.partition], TRAIN)
            self.choice.prepare(data)
            self._fit = clients_at_once(
                self.trainer.model, data, self.settings, together=self.choice.name == Vectorized.name
            )
        return self._fit

    def _trained(
        self, messages: list[Message], weights: list[Any], ready: Ready, mu: float, began: float
    ) -> Iterator[TrainedClients | Message]:
        cohort = ready.cohort
        try:
            outcome = self.choice.train(weights, cohort, ready.data, mu=mu, mean=self._mean)
        except ParterreError:
            raise
        except Exception as error:  # noqa: BLE001  a client's data may make a program raise: it costs that client alone
            if len(cohort) == 1:
                yield failure(messages[0], error)
                return
            log.warning("a cohort could not be trained at once, so its clients train one by one: %s", error)
            for place, message in enumerate(messages):
                alone = Ready(ready.data, cohort.part(np.array([place])))
                yield from self._trained([message], weights, alone, mu, began)
            return
        yield TrainedClients(messages, outcome, cohort.examples, (time.perf_counter() - began) / len(cohort))

    def _evaluate(self, asked: Asked, arrays: Arrays, pool: Pool) -> Iterator[Message]:
        began = time.perf_counter()
        data, rows = pool.part([job.partition for _, job in asked], VALIDATION)
        results = self._evaluations.evaluate(arrays, rows, data)
        seconds = (time.perf_counter() - began) / len(asked)
        for (message, _), mine, metrics in zip(asked, rows, results, strict=True):
            record = MetricRecord({WEIGHT: len(mine), **metrics, "seconds": seconds})
            yield Message(RecordDict({"metrics": record}), reply_to=message)


def _lease(message: Message) -> tuple[int, int]:
    """Return a message's partition and how many there are; zeros where it is no message of a Parterre server."""
    config = message.content.get("config")
    told = [config.get(key) for key in ("partition", "partitions")] if isinstance(config, ConfigRecord) else []
    numbers = [each for each in told if isinstance(each, int)]
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (0, 0)


def takes_mean(strategy: str) -> bool:
    """Say whether a strategy takes the clients' plain weighted mean, and looks at no reply alone."""
    kind = find(strategy)
    if not issubclass(kind, FedAvg):
        return False
    return kind.aggregate_train is FedAvg.aggregate_train and kind.weigh is FedAvg.weigh
