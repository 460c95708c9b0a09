"""A full disk is waited out: a write that finds no room is tried again until there is some, or the patience ends."""

import errno
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fl_common.errors import StoreError

FULL = (errno.ENOSPC, errno.EDQUOT)
NO_TEMPORARY = "No usable temporary directory"  # Python's way to say that the disk of /tmp is full
PAUSE_SECONDS = 1.0

T = TypeVar("T")
Announce = Callable[[Mapping[str, Any]], object]


class Patience:
    """Waits up to `seconds` for room. `announce` is shown a "paused" event at once; the log is too full to hold it."""

    def __init__(
        self,
        seconds: float = 0.0,
        announce: Announce = lambda event: None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._seconds = seconds
        self._announce = announce
        self._clock = clock
        self._sleep = sleep

    def wait(self, write: Callable[[], T]) -> tuple[T, float]:
        """Return what `write` returns, and how many seconds it was waited for. Raises its StoreError in the end."""
        began: float | None = None
        while True:
            try:
                return write(), 0.0 if began is None else self._clock() - began
            except StoreError as error:
                waited = 0.0 if began is None else self._clock() - began
                if not is_full(error) or waited >= self._seconds:
                    raise
                if began is None:
                    began = self._clock()
                    self._announce(paused(str(error), 0.0))
                self._sleep(PAUSE_SECONDS)


def paused(reason: str, seconds: float) -> dict[str, Any]:
    """Return the event of a run that waits, or has waited, for room on its disk."""
    return {"event": "paused", "reason": reason, "seconds": round(seconds, 3)}


def is_full(error: StoreError) -> bool:
    """Say whether a write failed for want of room."""
    cause = error.__cause__
    return isinstance(cause, OSError) and (cause.errno in FULL or str(cause.strerror).startswith(NO_TEMPORARY))
