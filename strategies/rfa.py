"""RFA: the geometric median of the clients' models."""

from collections.abc import Sequence
from typing import Any

from fl_common.errors import StrategyError
from fl_common.messages.arrays import Arrays
from strategies.replies import Reply
from strategies.robust import Robust, arrays_of, weights_of
from strategies.rules import centres
from strategies.rules.geometry import combination, gram


class RFA(Robust):
    """Pillutla et al. 2022 (arXiv:1912.13445), algorithm 2: the smoothed Weiszfeld iteration, run until it settles.

    The paper stops after three iterations, because each costs it a round of messages; here they cost nothing beside one
    pass over the replies. smoothing: its nu. weighted: the paper's alpha are the clients' shares of the examples; by
    default all count alike, because one who claims more than half of them is the median. Bears up to half.
    """

    def __init__(self, *, smoothing: float = 1e-6, weighted: bool = False, **fedavg: Any) -> None:
        super().__init__(**fedavg)
        if not smoothing > 0:
            raise StrategyError(f"smoothing must be above 0; got {smoothing}. The paper's is 1e-6")
        self.smoothing, self.weighted = smoothing, weighted

    def combine(self, current: Arrays, replies: Sequence[Reply], names: Sequence[str]) -> Arrays:
        """Return the geometric median."""
        inner = gram(arrays_of(replies), names, current)
        weights = weights_of(replies, weighted=self.weighted)
        shares = centres.geometric_median(inner, weights, smoothing=self.smoothing)
        return combination(arrays_of(replies), names, shares, current)
