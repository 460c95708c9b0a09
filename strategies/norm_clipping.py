"""The mean of the clients' updates, each shortened to a bound."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fl_common.arrays import Arrays
from fl_common.errors import StrategyError
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

    def combine(self, current: Arrays, replies: Sequence[Reply], names: Sequence[str]) -> Arrays:
        """Return the mean of the shortened updates, added to the current model."""
        lengths = norms(arrays_of(replies), names, current)
        weights = weights_of(replies, weighted=self.weighted)
        factors = np.where(np.isfinite(lengths), clipped(lengths, self.bound or float(np.median(lengths))), 0.0)
        return combination(arrays_of(replies), names, weights / weights.sum() * factors, current)
