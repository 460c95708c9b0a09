"""The next cohort, made ready on a thread while this one trains. Between the engine and the pool of data.

Who trains next follows from the seed and the round, so it can be guessed; a wrong guess costs time, never truth: what
was made ready is taken only for the very clients that are asked.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from logging import getLogger
from typing import Any

import strategies
from fl_common.data.examples import Examples
from fl_common.settings.schema import Settings
from fl_simulation.engine.data.pool import TRAIN, VALIDATION, Pool, pick
from fl_simulation.engine.work import TrainingCohort
from strategies.fedavg import FedAvg

log = getLogger(__name__)

MISSES = 3  # wrong guesses in a row, after which no more are made


@dataclass(frozen=True)
class Order:
    """Clients that are to train together in a round: their numbers, their partitions, and of how many these are."""

    round: int
    clients: tuple[int, ...]
    partitions: tuple[int, ...]
    of: int


@dataclass(frozen=True)
class Ready:
    """What an order needs: the resident data and the cohort over their rows."""

    data: Any
    cohort: TrainingCohort


class Ahead:
    """Makes orders ready: those that are asked for, and one beforehand. `pool` gives the data for a population."""

    def __init__(self, settings: Settings, pool: Callable[[int], Pool]) -> None:
        self._settings = settings
        self._pool = pool
        self._thread = ThreadPoolExecutor(1, "ahead")
        self._next: Future[tuple[Order, Ready] | None] | None = None
        self._misses = 0

    def take(self, order: Order) -> Ready:
        """Return what the order needs, made beforehand if it was guessed."""
        begun, self._next = self._next, None
        if begun is not None and begun.exception() is None and (made := begun.result()) is not None:
            if made[0] == order:
                self._misses = 0
                return made[1]
            self._misses += 1
            log.debug("another cohort than was made ready trains in round %d", order.round)
        return self._ready(order)

    def begin(self, guess: Callable[[], Order | None]) -> None:
        """Begin to make ready what may be asked for next, which the thread guesses."""
        if self._misses < MISSES:
            self._next = self._thread.submit(self._guessed, guess)

    def _guessed(self, guess: Callable[[], Order | None]) -> tuple[Order, Ready] | None:
        order = guess()
        return None if order is None else (order, self._ready(order))

    def _ready(self, order: Order) -> Ready:
        pool = self._pool(order.of)
        pool.wrong(order.partitions)  # loads them
        data, rows = pool.part(order.partitions, TRAIN)
        settings = self._settings
        cohort = TrainingCohort.of(
            order.round,
            order.clients,
            rows,
            batch_size=settings.batch_size,
            epochs=settings.local_epochs,
            seed=settings.seed,
            held=partial(_held, pool, dict(zip(order.clients, order.partitions, strict=True))),
        )
        return Ready(data, cohort)


def _held(pool: Pool, partitions: Mapping[int, int], client: int) -> Examples:
    """Return a client's validation part."""
    data, (rows,) = pool.part([partitions[client]], VALIDATION)
    return pick(data, rows)


class Forecast:
    """Guesses whom a strategy of ours will ask in a round, by asking another instance of it."""

    def __init__(self, settings: Settings) -> None:
        strategy = strategies.make(settings)
        self._strategy = strategy if isinstance(strategy, FedAvg) else None
        self._last = settings.rounds

    def cohort(self, round: int, population: int) -> Sequence[int]:
        """Return the slots of the clients; none where they cannot be guessed, or where the run is over by then."""
        if self._strategy is None or round > self._last:
            return ()
        return self._strategy.sampled(round, range(population))
