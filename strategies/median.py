"""Coordinate-wise median of the clients' models."""

from collections.abc import Sequence

from fl_common.messages.arrays import Arrays
from strategies.replies import Reply
from strategies.robust import Robust, arrays_of
from strategies.rules import ordering


class Median(Robust):
    """Yin et al. 2018 (arXiv:1803.01498), algorithm 1, option I. Weights are not looked at.

    Bears any number of hostile replies below half.
    """

    def combine(self, current: Arrays, replies: Sequence[Reply], names: Sequence[str]) -> Arrays:
        """Return the medians."""
        return ordering.median(arrays_of(replies), names)
