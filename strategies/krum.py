"""Krum and Multi-Krum: the client's model, or the mean of those, that have the nearest neighbours."""

from collections.abc import Sequence
from logging import getLogger
from typing import Any

from fl_common.errors import StrategyError
from fl_common.messages.arrays import Arrays
from strategies.replies import Reply
from strategies.robust import Bearing, arrays_of, weights_of
from strategies.rules import selection
from strategies.rules.geometry import gram, squared_distances
from strategies.rules.weighted_mean import WeightedMean

log = getLogger(__name__)


class Krum(Bearing):
    """Blanchard et al. 2017 (arXiv:1703.02757), section 4: one client's model is the next. Looks at no weights."""

    def fewest(self, replies: int) -> int:
        """Return 2f + 3, the paper's condition."""
        return 2 * self.borne(replies) + 3

    def chosen(self, replies: int) -> int:
        """Return how many models are chosen."""
        return 1

    def combine(self, current: Arrays, replies: Sequence[Reply], names: Sequence[str]) -> Arrays:
        """Return the model that is chosen, or the mean of those."""
        count = len(replies)
        distances = squared_distances(gram(arrays_of(replies), names, current))
        chosen = [replies[place] for place in selection.krum(distances, self.borne(count), self.chosen(count))]
        log.info("%s chose nodes %s", type(self).__name__, [reply.node for reply in chosen])
        return self._averaged(chosen, {name: current[name] for name in names})

    def _averaged(self, chosen: Sequence[Reply], like: Arrays) -> Arrays:
        return {name: chosen[0].arrays[name] for name in like}


class MultiKrum(Krum):
    """Blanchard et al. 2017, section 4: the mean of the `m` models with the best scores; m 0 is n - f, all but f.

    weighted: weigh them by their numbers of examples, as Flower does; the paper's mean is plain.
    """

    def __init__(self, *, m: int = 0, weighted: bool = False, **bearing: Any) -> None:
        super().__init__(**bearing)
        if m < 0:
            raise StrategyError(f"m must be at least 0; got {m}. 0 is all replies but f")
        self.m, self.weighted = m, weighted

    def fewest(self, replies: int) -> int:
        """Return 2f + 3, and `m` at least."""
        return max(super().fewest(replies), self.m)

    def chosen(self, replies: int) -> int:
        """Return how many models are chosen."""
        return self.m or replies - self.borne(replies)

    def _averaged(self, chosen: Sequence[Reply], like: Arrays) -> Arrays:
        mean = WeightedMean(like)
        mean.fold_all(list(zip(arrays_of(chosen), weights_of(chosen, weighted=self.weighted), strict=True)))
        return mean.result(like)
