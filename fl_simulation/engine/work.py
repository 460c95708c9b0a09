"""What a cohort does in a round, and what comes of it: between the messages and the ways of training."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fl_common.data.batches import shuffled
from fl_common.data.examples import Examples
from fl_common.messages.arrays import Arrays

Places = NDArray[np.intp]  # of clients in a cohort


@dataclass(frozen=True)
class TrainingCohort:
    """Clients that train from one model in one round.

    rows: rows of the resident data in the order in which they are taken: each client's epochs in turn, int32
    [sum of examples * epochs]. examples: each client's number of them, int64 [clients]. held: gives a client's
    validation part, by its number.
    """

    round: int
    clients: NDArray[np.int64]
    rows: NDArray[np.int32]
    examples: NDArray[np.int64]
    epochs: int
    batch_size: int
    held: Callable[[int], Examples | None] = lambda client: None

    def __len__(self) -> int:
        return len(self.clients)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where each client's rows begin, and behind them where they all end, [clients + 1]."""
        return np.concatenate([[0], np.cumsum(self.examples * self.epochs)])

    @cached_property
    def steps(self) -> NDArray[np.int64]:
        """The number of each client's local steps in all epochs, [clients]."""
        return -(-self.examples // self.batch_size) * self.epochs

    def plan(self, place: int) -> NDArray[np.int32]:
        """Return one client's rows, [epochs, examples]."""
        return self.rows[self.starts[place] : self.starts[place + 1]].reshape(self.epochs, -1)

    def part(self, places: Places) -> "TrainingCohort":
        """Return the clients at these places as a cohort of their own."""
        rows = np.concatenate([self.rows[self.starts[place] : self.starts[place + 1]] for place in places])
        return replace(self, clients=self.clients[places], rows=rows, examples=self.examples[places])

    @classmethod
    def of(
        cls,
        round: int,
        clients: Sequence[int],
        rows: Sequence[NDArray[np.int32]],
        *,
        batch_size: int,
        epochs: int,
        seed: int,
        held: Callable[[int], Examples | None] = lambda client: None,
    ) -> "TrainingCohort":
        """Return the cohort whose clients hold these rows of the resident data, by the batch plan that all follow."""
        ordered = shuffled(rows, clients, epochs, seed=seed, round=round)
        examples = np.array([len(mine) for mine in rows], np.int64)
        return cls(round, np.asarray(clients, np.int64), ordered, examples, epochs, batch_size, held)


@dataclass(frozen=True)
class Outcome:
    """What a cohort's training gave: arrays and metrics.

    arrays: of each client, [clients, ...]; or, where their mean is wanted, the sums over finite clients of the number
    of examples times the weights, in float64, of what training moves. metrics: of the last local epoch, [clients] each.
    finite: whether a client's arrays are all finite, [clients].
    """

    arrays: Arrays
    metrics: dict[str, NDArray[Any]]
    finite: NDArray[np.bool_]

    @classmethod
    def of_parts(cls, parts: Sequence[tuple[Places, "Outcome"]], *, mean: bool) -> "Outcome":
        """Return the whole cohort's outcome from those of its parts, which name their clients' places in it."""
        order = np.argsort(np.concatenate([places for places, _ in parts]))
        whole = cls.added([outcome for _, outcome in parts], mean=mean)
        if np.array_equal(order, np.arange(len(order))):
            return whole
        arrays = whole.arrays if mean else {name: value[order] for name, value in whole.arrays.items()}
        return cls(arrays, {name: value[order] for name, value in whole.metrics.items()}, whole.finite[order])

    @classmethod
    def added(cls, outcomes: Sequence["Outcome"], *, mean: bool = True) -> "Outcome":
        """Return the outcome of cohorts one behind the other."""
        first = outcomes[0]
        if len(outcomes) == 1:
            return first
        join = _sum if mean else np.concatenate
        return cls(
            {name: join([each.arrays[name] for each in outcomes]) for name in first.arrays},
            {name: np.concatenate([each.metrics[name] for each in outcomes]) for name in first.metrics},
            np.concatenate([each.finite for each in outcomes]),
        )

    def mean(self, examples: NDArray[np.int64], before: Mapping[str, NDArray[Any]]) -> Arrays:
        """Return the mean over the finite clients, weighted by examples; what training does not move is as before."""
        total = max(int(examples[self.finite].sum()), 1)
        return {
            name: (self.arrays[name] / total).astype(old.dtype) if name in self.arrays else old
            for name, old in before.items()
        }


def _sum(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    total: NDArray[Any] = np.sum(arrays, axis=0)
    return total


class Way(Protocol):
    """A way of training a cohort. What comes of it is the same for all, to rounding."""

    name: str

    def train(self, weights: Sequence[Any], cohort: TrainingCohort, data: Any, *, mu: float, mean: bool) -> Outcome:
        """Train each client of the cohort from `weights`, which are in the order of `model.weights`.

        data: resident tensors of (x, y) or (x, y, sample_weight). mean: return sums for the clients' weighted mean.
        """
