"""Time that only grows: the wall clock as a server started, and the machine's monotonic clock since.

A clock of the machine that is set, forward or back, changes nothing of it.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True)
class Steady:
    """offset: seconds since 1970 at the zero of the monotonic clock, which all processes of a machine share."""

    offset: float

    @classmethod
    def after(cls, latest: float = 0.0) -> "Steady":
        """Begin now by the wall clock, but later than `latest`, the newest stamp that there is."""
        return cls(max(time.time(), latest) - time.monotonic())

    def timestamp(self) -> float:
        """Return seconds since 1970."""
        return self.offset + time.monotonic()

    def now(self) -> datetime:
        """Return the same as a date, as Flower's own `now` does."""
        return datetime.fromtimestamp(self.timestamp(), tz=UTC)

    def earlier(self) -> datetime:
        """Return this time or the wall clock's: nothing that holds by one of them has run out."""
        return min(self.now(), wall())


def wall() -> datetime:
    """Return the wall clock's time."""
    return datetime.now(tz=UTC)
