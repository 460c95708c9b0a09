"""The mean of the clients' updates, each shortened to a bound."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord

from fl_common.errors import StrategyError
from fl_common.messages.arrays import Arrays, is_float
from strategies.fedavg import FedAvg
from strategies.replies import Reply
from strategies.robust import Robust, arrays_of, weights_of
from strategies.rules.centres import clipped
from strategies.rules.geometry import combination, norms


class NormClipping(Robust):
    """Sun et al. 2019 (arXiv:1911.07963), section 3: updates longer than M are shortened to M, then averaged.

    bound: M, the largest Euclidean norm of a client's model minus the current one; 0 takes the median of the round's
    norms, which no minority sets. weighted: weigh by examples, as the paper does; by default all count alike.
    """

    def __init__(self, *, bound: float = 0.0, weighted: bool = False, **fedavg: Any) -> None:
        super().__init__(**fedavg)
        if not bound >= 0:
            raise StrategyError(f"bound must be at least 0; got {bound}. 0 takes the median of the round's norms")
        self.bound, self.weighted = bound, weighted
        self._whole = self._kept = 0.0  # of the weights that were folded so far, all and what shortening left of them

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Hold the replies, as other robust strategies do; with a bound that is set, fold each as it comes.

        Statistics take the median of all replies: a model that has any needs them held.
        """
        self._whole = self._kept = 0.0
        if not self.bound or self.non_trainable:
            return super().aggregate_train(server_round, replies)
        return FedAvg.aggregate_train(self, server_round, replies)

    def weigh(self, reply: Reply) -> float:
        """Return the weight of a model in the mean as a whole: shortening its update is weighing it less."""
        floats = [name for name, array in reply.arrays.items() if is_float(array.dtype)]
        weight = float(weights_of([reply], weighted=self.weighted)[0])
        kept = weight * float(clipped(norms([reply.arrays], floats, self._current), self.bound)[0])
        self._whole, self._kept = self._whole + weight, self._kept + kept
        return kept

    def step(self, current: Arrays, mean: Arrays) -> Arrays:
        """Return the model that shortening leads to: as much of the way to `mean` as was kept of the weights."""
        if not self._whole:  # they were held, and combined already
            return mean
        share = self._kept / self._whole
        return {
            name: (current[name] + share * (array - current[name])).astype(array.dtype)
            if share and is_float(array.dtype)
            else current[name]
            for name, array in mean.items()
        }

    def combine(self, current: Arrays, replies: Sequence[Reply], names: Sequence[str]) -> Arrays:
        """Return the mean of the shortened updates, added to the current model."""
        lengths = norms(arrays_of(replies), names, current)
        weights = weights_of(replies, weighted=self.weighted)
        factors = np.where(np.isfinite(lengths), clipped(lengths, self.bound or float(np.median(lengths))), 0.0)
        return combination(arrays_of(replies), names, weights / weights.sum() * factors, current)
