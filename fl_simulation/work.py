"""What a cohort does in a round, and what comes of it: between the messages and the ways of training."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fl_common.arrays import Arrays
from fl_common.batches import plan


@dataclass(frozen=True)
class Cohort:
    """Clients that train from one model in one round.

    plans: for each client one permutation of its rows for each epoch; examples: their numbers, int64 [clients].
    """

    round: int
    clients: Sequence[int]
    plans: Sequence[Sequence[NDArray[np.int32]]]
    examples: NDArray[np.int64]
    batch_size: int

    def __len__(self) -> int:
        return len(self.clients)

    def part(self, chosen: slice) -> "Cohort":
        """Return some of the clients as a cohort of their own."""
        return replace(self, clients=self.clients[chosen], plans=self.plans[chosen], examples=self.examples[chosen])

    @classmethod
    def of(
        cls,
        round: int,
        clients: Sequence[int],
        rows: Sequence[NDArray[Any]],
        *,
        batch_size: int,
        epochs: int,
        seed: int,
    ) -> "Cohort":
        """Return the cohort whose clients hold these rows of the resident data, by the batch plan that all follow."""
        plans = [
            [mine[order] for order in plan(len(mine), batch_size, epochs, seed=seed, round=round, client=client)]
            for client, mine in zip(clients, rows, strict=True)
        ]
        return cls(round, clients, plans, np.array([len(mine) for mine in rows]), batch_size)


@dataclass(frozen=True)
class Outcome:
    """What a cohort's training gave: arrays of each client, [clients, ...], or their weighted mean; and its metrics.

    metrics: of the last local epoch, [clients] each. finite: whether a client's arrays are all finite, [clients]; the
    mean leaves out those that are not.
    """

    arrays: Arrays
    metrics: dict[str, NDArray[Any]]
    finite: NDArray[np.bool_]


class Way(Protocol):
    """A way of training a cohort. What comes of it is the same for all, to rounding."""

    name: str

    def train(self, weights: Sequence[NDArray[Any]], cohort: Cohort, data: Any, *, mu: float, mean: bool) -> Outcome:
        """Train each client of the cohort from `weights`, which are in the order of `model.weights`.

        data: resident tensors of (x, y) or (x, y, sample_weight). mean: return the clients' weighted mean only.
        """
