"""Centered clipping: each client pulls at the last round's update, no further than a bound."""

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from fl_common.errors import StrategyError
from fl_common.messages.arrays import Arrays
from strategies.replies import Reply
from strategies.robust import Robust, arrays_of, weights_of
from strategies.rules import centres
from strategies.rules.geometry import combination, gram


class CenteredClipping(Robust):
    """Karimireddy et al. 2021 (arXiv:2012.10333), algorithm 1 (CCLIP), whose centre is the last round's aggregate.

    bound: its tau; 0 takes the median of the distances to the centre. iterations: its L. weighted: weigh the pulls by
    examples. The centre is the update that was taken last, and is kept in checkpoints. Clients keep no momentum of
    their own from round to round, as the paper's workers do: a client of a federation seldom takes part in two
    rounds running.
    """

    def __init__(self, *, bound: float = 0.0, iterations: int = 1, weighted: bool = False, **fedavg: Any) -> None:
        super().__init__(**fedavg)
        if not bound >= 0:
            raise StrategyError(f"bound must be at least 0; got {bound}. 0 takes the median of the distances")
        if iterations < 1:
            raise StrategyError(f"iterations must be at least 1; got {iterations}")
        self.bound, self.iterations, self.weighted = bound, iterations, weighted
        self._centre: dict[str, NDArray[Any]] = {}

    def combine(self, current: Arrays, replies: Sequence[Reply], names: Sequence[str]) -> Arrays:
        """Return the current model and the new centre, which is kept for the next round."""
        models = [*arrays_of(replies), self._centred(current, names)]
        coefficients = centres.centered_clipping(
            gram(models, names, current),
            weights_of(replies, weighted=self.weighted),
            bound=self.bound,
            iterations=self.iterations,
        )
        result = combination(models, names, coefficients, current)
        self._centre = {name: result[name] - current[name] for name in names}
        return result

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the centre by the names of the variables; {} before the first round."""
        return dict(self._centre)

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take back what `state` returned."""
        self._centre = dict(state)

    def _centred(self, current: Arrays, names: Sequence[str]) -> Arrays:
        if self._centre and self._centre.keys() != set(names):
            raise StrategyError(f"the saved centre is of another model: {sorted(self._centre.keys() ^ set(names))[:3]}")
        return {name: current[name] + self._centre[name] if self._centre else current[name] for name in names}
