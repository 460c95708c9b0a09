"""Time as the server reads it: the wall clock, or that of a simulated fleet, which a Grid brings with it."""

import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

from flwr.serverapp import Grid


class Clock:
    """The wall clock. `simulated` says whether another one stands in for it."""

    simulated = False

    def now(self) -> float:
        """Return seconds since some moment of the past; they only grow."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)


@runtime_checkable
class TimedGrid(Protocol):
    """A Grid in a time of its own: its replies arrive in it, and the server's deadlines and pauses act in it.

    Such a grid hands replies over in the order of their arrival, and sets `clock` forward to each as it is pulled.
    """

    clock: Clock

    def expect(self, *, deadline: float, enough: int) -> None:
        """Be told, before messages are pushed, when the server stops waiting, on `clock`, and how many it takes.

        enough: 0 for all of them. What would arrive after either is never asked for and need not be made.
        """

    def discard(self, message_ids: Iterable[str]) -> Mapping[str, bool]:
        """Be told that nobody wants these answers any more; none of them is made.

        Return the ids of the messages that have been answered by now, and whether by their client.
        """

    def notes(self) -> dict[str, Any]:
        """Return who is at work at this moment and what is on its way, as JSON knows it, for a checkpoint."""

    def restore(self, notes: Mapping[str, Any]) -> None:
        """Go on from such notes, before any message is pushed."""


def clock_of(grid: Grid) -> Clock:
    """Return the clock that a grid lives by."""
    return grid.clock if isinstance(grid, TimedGrid) else Clock()
