"""Coordinate-wise mean of the clients' models without the extremes."""

from collections.abc import Sequence

from fl_common.messages.arrays import Arrays
from strategies.replies import Reply
from strategies.robust import Bearing, arrays_of
from strategies.rules import ordering


class TrimmedMean(Bearing):
    """Yin et al. 2018 (arXiv:1803.01498), algorithm 1, option II. Weights are not looked at.

    The `f` smallest and the `f` largest values of each coordinate are left out: f below 1 is the paper's beta.
    """

    def fewest(self, replies: int) -> int:
        """Return 2f + 1: one value has to be left."""
        return 2 * self.borne(replies) + 1

    def combine(self, current: Arrays, replies: Sequence[Reply], names: Sequence[str]) -> Arrays:
        """Return the trimmed means."""
        return ordering.trimmed_mean(arrays_of(replies), names, self.borne(len(replies)))
