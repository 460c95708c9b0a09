"""What a hostile client sends in place of the model it trained: pure functions over NumPy arrays by name.

Between `hostile_clients.py`, which says who is hostile, and the papers that describe the attacks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_common.messages.arrays import Arrays, is_float

Model = Mapping[str, NDArray[Any]]
Attack = Callable[[Model, Model, "AttackerView"], Arrays]

SCALES = {"sign_flip": 1.0, "scale": 10.0, "gaussian": 1.0, "alie": 1.5}  # where attack_scale is 0


class Moments:
    """Running mean and standard deviation of each number over models, in float64 (Welford)."""

    def __init__(self) -> None:
        self.count = 0
        self._mean: Arrays = {}
        self._squares: Arrays = {}

    def add(self, model: Model) -> None:
        """Take one more model."""
        self.count += 1
        for name, array in model.items():
            if is_float(array.dtype):
                value = np.asarray(array, np.float64)
                before = self._mean.setdefault(name, np.zeros(value.shape))
                step = value - before
                self._mean[name] = before + step / self.count
                spread = self._squares.setdefault(name, np.zeros(value.shape))
                spread += step * (value - self._mean[name])

    def mean(self, name: str) -> NDArray[np.float64]:
        """Return the mean of one variable."""
        mean: NDArray[np.float64] = self._mean[name]
        return mean

    def deviation(self, name: str) -> NDArray[np.float64]:
        """Return the standard deviation of one variable."""
        deviation: NDArray[np.float64] = np.sqrt(self._squares[name] / self.count)
        return deviation


@dataclass(frozen=True)
class AttackerView:
    """What an attacker has: how strongly to attack, random numbers, and the honest clients' models of the round."""

    scale: float
    rng: np.random.Generator
    honest: Moments


def sign_flip(current: Model, trained: Model, seen: AttackerView) -> Arrays:
    """Go `scale` times as far as the client's own training went, the other way."""
    return _moved(current, trained, lambda name, update: -seen.scale * update)


def scale(current: Model, trained: Model, seen: AttackerView) -> Arrays:
    """Go `scale` times as far as the client's own training went: model replacement, Bagdasaryan et al. 2020."""
    return _moved(current, trained, lambda name, update: seen.scale * update)


def gaussian(current: Model, trained: Model, seen: AttackerView) -> Arrays:
    """Send the current model with noise of standard deviation `scale` on every number: Blanchard et al. 2017, 5."""
    return _moved(current, trained, lambda name, update: seen.rng.normal(0.0, seen.scale, update.shape))


def nan(current: Model, trained: Model, seen: AttackerView) -> Arrays:
    """Send no numbers at all. A server that checks its replies rejects it."""
    return _moved(current, trained, lambda name, update: np.full(update.shape, np.nan))


def alie(current: Model, trained: Model, seen: AttackerView) -> Arrays:
    """Send the honest mean less `scale` honest standard deviations: Baruch et al. 2019 (arXiv:1902.06156), algorithm 3.

    "A little is enough": the paper's attackers estimate both from their own clean training; these know the honest
    models. Its equation 1 allows a scale (its z) of 1.43 to 24 hostile clients of 50; the default is 1.5.
    """
    if not seen.honest.count:
        return dict(trained)

    def from_mean(name: str, update: NDArray[np.float64]) -> NDArray[np.float64]:
        return seen.honest.mean(name) - seen.scale * seen.honest.deviation(name) - current[name]

    return _moved(current, trained, from_mean)


ATTACKS: dict[str, Attack] = {
    "sign_flip": sign_flip,
    "scale": scale,
    "gaussian": gaussian,
    "nan": nan,
    "alie": alie,
}


def _moved(current: Model, trained: Model, update: Callable[[str, NDArray[np.float64]], NDArray[np.float64]]) -> Arrays:
    """Return current + update(name, trained - current) for floats, and what was trained for all else."""
    result = dict(trained)
    with np.errstate(over="ignore", invalid="ignore"):
        for name, array in trained.items():
            if is_float(array.dtype):
                before = np.asarray(current[name], np.float64)
                result[name] = (before + update(name, np.asarray(array, np.float64) - before)).astype(array.dtype)
    return result
