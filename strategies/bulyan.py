"""Bulyan: the models that Krum chooses one after the other, then of each coordinate the values around their median."""

from collections.abc import Sequence
from logging import getLogger
from typing import Any

from fl_common.messages.arrays import Arrays
from strategies.replies import Reply
from strategies.robust import Bearing, arrays_of
from strategies.rules import ordering, selection
from strategies.rules.geometry import gram, squared_distances

log = getLogger(__name__)


class Bulyan(Bearing):
    """El Mhamdi et al. 2018 (arXiv:1802.07927), section 4, over Krum. Weights are not looked at.

    theta = n - 2f models are chosen; the beta = theta - 2f values of a coordinate nearest to its median are averaged.
    """

    def __init__(self, *, f: float = 0.1, **fedavg: Any) -> None:
        super().__init__(f=f, **fedavg)

    def fewest(self, replies: int) -> int:
        """Return 4f + 3, the paper's condition."""
        return 4 * self.borne(replies) + 3

    def combine(self, current: Arrays, replies: Sequence[Reply], names: Sequence[str]) -> Arrays:
        """Return the means around the medians of the models that are chosen."""
        f = self.borne(len(replies))
        places = selection.bulyan(squared_distances(gram(arrays_of(replies), names, current)), f)
        chosen = [replies[place] for place in places]
        log.info("Bulyan chose nodes %s", [reply.node for reply in chosen])
        return ordering.mean_around_median(arrays_of(chosen), names, len(chosen) - 2 * f)
