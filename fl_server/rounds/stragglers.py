"""Messages whose phase ended before their answer came: it is dropped when it does come, and told; never aggregated.

Without this a late reply would lie on the SuperLink until the run ends, and nobody would know which client is slow.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple, dataclass
from typing import Any

from flwr.serverapp import Grid

from fl_server.rounds.clock import Clock
from fl_server.superlink.grid.pulling import discard


@dataclass(frozen=True)
class Straggler:
    """A client that was asked in vain, and why nobody waits any more: "surplus", "late" or "repeat"."""

    node: int
    client: int | None
    phase: str
    round: int
    attempt: int
    reason: str
    asked_at: float
    until: float


class Stragglers:
    """Those whose answer is still to come, by message id. A message that has expired is answered no more."""

    def __init__(self, grid: Grid, clock: Clock, announce: Callable[[Mapping[str, Any]], object]) -> None:
        self._grid, self._clock, self._announce = grid, clock, announce
        self._waiting: dict[str, Straggler] = {}

    def add(self, identity: str, straggler: Straggler, *, came: bool = False) -> None:
        """Expect an answer that nobody wants, or announce one that came in the very last moment."""
        if came:
            self._announce(_event(straggler, self._clock.now() - straggler.asked_at))
        else:
            self._waiting[identity] = straggler

    def notes(self) -> list[Any]:
        """Return who is still to answer, as JSON knows it."""
        return [[identity, *astuple(each)] for identity, each in self._waiting.items()]

    def restore(self, notes: Iterable[Any]) -> None:
        """Expect those of such notes."""
        self._waiting = {identity: Straggler(*each) for identity, *each in notes}

    def busy(self) -> set[int]:
        """Return the nodes that may still be at work on an earlier message."""
        self.drop()
        return {straggler.node for straggler in self._waiting.values()}

    def drop(self) -> None:
        """Drop what has come meanwhile, and announce each reply as "dropped"."""
        if not self._waiting:
            return
        answered = discard(self._grid, list(self._waiting))
        now = self._clock.now()
        for identity, replied in answered.items():
            straggler = self._waiting.pop(identity, None)
            if straggler is not None and replied:
                self._announce(_event(straggler, now - straggler.asked_at))
        self._waiting = {identity: each for identity, each in self._waiting.items() if now < each.until}


def _event(straggler: Straggler, seconds: float) -> dict[str, Any]:
    return {
        "event": "dropped",
        "round": straggler.round,
        "attempt": straggler.attempt + 1,
        "client": straggler.client,
        "node": str(straggler.node),
        "phase": straggler.phase,
        "reason": straggler.reason,
        "seconds": round(seconds, 3),
    }
