"""For how long something has stood still, in seconds in which somebody looked: a clock alone cannot say.

A machine that slept, or whose processes were stopped, goes on where it was; the hours between count for one look.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

LONGEST_STEP = 6.0  # seconds that the time between two looks counts for at most


class Standstill:
    """Call `look` again and again. `seconds`: since something last moved."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looked = clock()
        self.seconds = 0.0

    def look(self, *, moved: bool) -> float:
        """Say whether something `moved` since the last look; return `seconds`."""
        now = self._clock()
        self.seconds = 0.0 if moved else self.seconds + min(now - self._looked, LONGEST_STEP)
        self._looked = now
        return self.seconds


def work_of(pid: int | None) -> float:
    """Return the seconds of processor time that a process has used; 0 where it is gone, or the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
