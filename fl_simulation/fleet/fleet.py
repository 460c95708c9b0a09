"""A simulated fleet: how fast each client is, when it is there and whether it drops out. Pure functions of the seed.

docs/explanation/simulated-fleets.md has the model. Times are in seconds of the fleet's own clock, which begins at 0 in
the best hour of the middle time zone. Clients are numbered from 0.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_common.settings.schema import Settings

HOUR = 3600.0
DAY_HOURS = 24
FORWARD = 1 / 3  # an example's evaluation is a forward pass; training it takes about three times as many operations
LOST_SECONDS = 20.0  # a SuperLink gives a node up two heartbeats, of 10 s each, after the last
MEGABIT = 1e6 / 8  # bytes

GOLDEN = np.uint64(0x9E3779B97F4A7C15)

Floats = NDArray[np.float64]
Clients = NDArray[np.int64]


class Draw(IntEnum):
    """What is drawn: each has random numbers of its own."""

    SPEED, NETWORK, DROPOUT, MOMENT, ZONE, PRESENCE = range(6)


@dataclass(frozen=True)
class Fleet:
    """The properties of a population of devices; the fields are the settings `fleet_*`."""

    seed: int = 0
    epochs: int = 1
    speed: float = 0.0
    speed_spread: float = 0.5
    download: float = 0.0
    upload: float = 0.0
    network_spread: float = 0.5
    latency: float = 0.0
    dropout: float = 0.0
    peak: float = 1.0
    trough: float = 1.0
    zones: float = 0.0

    @classmethod
    def of(cls, settings: Settings) -> "Fleet | None":
        """Return the fleet that the settings describe; None where they describe none."""
        own = {name.removeprefix("fleet_"): value for name, value in settings.model_dump().items() if _is_own(name)}
        fleet = cls(seed=settings.seed, epochs=settings.local_epochs, **own)
        takes_time = fleet.speed or fleet.download or fleet.upload or fleet.latency
        first = settings.over_selection > 1  # the first to answer are taken, so somebody must be first
        return fleet if takes_time or fleet.dropout or first or not fleet.always_there else None

    @property
    def always_there(self) -> bool:
        """Whether every client is there at every hour."""
        return min(self.peak, self.trough) == 1

    def seconds(self, clients: Clients, examples: Floats, down: Floats, up: Floats, *, trains: bool) -> Floats:
        """Return how long each client takes from being asked to its reply's arrival. down, up: bytes."""
        work = examples * (self.epochs if trains else FORWARD)
        network = self._factor(Draw.NETWORK, self.network_spread, clients)
        return (
            2 * self.latency
            + _over(down, self.download * MEGABIT, network)
            + _over(work, self.speed, self._factor(Draw.SPEED, self.speed_spread, clients))
            + _over(up, self.upload * MEGABIT, network)
        )

    def dropouts(self, clients: Clients, *key: int) -> Floats:
        """Return at which share of its work each client drops out; NaN where it does not. key: the phase asked in."""
        drops = uniform(self.seed, Draw.DROPOUT, *key, clients=clients) < self.dropout
        return np.where(drops, uniform(self.seed, Draw.MOMENT, *key, clients=clients), np.nan)

    def present(self, population: int, hour: int) -> NDArray[np.bool_]:
        """Return who is there in an hour of the fleet's time: drawn anew each hour, by each client's own hour."""
        clients = np.arange(population)
        zone = self.zones * (uniform(self.seed, Draw.ZONE, clients=clients) - 0.5)
        swing = (1 + np.cos(2 * np.pi * (hour - zone) / DAY_HOURS)) / 2
        worst = min(self.trough, self.peak)
        chance = worst + (self.peak - worst) * swing
        return uniform(self.seed, Draw.PRESENCE, hour, clients=clients) < chance

    def _factor(self, draw: Draw, spread: float, clients: Clients) -> Floats:
        """Return log-normal factors of median 1."""
        factors: Floats = np.exp(spread * _normal(self.seed, draw, clients))
        return factors


def uniform(seed: int, *key: int, clients: Clients) -> Floats:
    """Return a number in (0, 1) for each client, from (seed, key, client) alone, by SplitMix64 (Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        state = np.zeros(1, np.uint64)
        for part in (seed, *key):
            state = _mix(state + np.uint64(part) + GOLDEN)
        mixed = _mix(_mix(state + GOLDEN * (clients.astype(np.uint64) + np.uint64(1))))
    numbers: Floats = ((mixed >> np.uint64(11)) + 0.5) * 2.0**-53
    return numbers


def _mix(state: Any) -> Any:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def _normal(seed: int, draw: Draw, clients: Clients) -> Floats:
    one, other = (uniform(seed, draw, part, clients=clients) for part in (0, 1))  # Box and Muller 1958
    normal: Floats = np.sqrt(-2 * np.log(one)) * np.cos(2 * np.pi * other)
    return normal


def _over(amount: Floats, rate: float, factors: Floats) -> Floats:
    """Return the seconds that an amount takes; none where the rate is 0, which stands for any."""
    return amount / (rate * factors) if rate else np.zeros_like(amount)


def _is_own(name: str) -> bool:
    return name.startswith("fleet_")
