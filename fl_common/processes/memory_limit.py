"""The memory limit around this process (its cgroup's), and whether the kernel has killed for it.

Linux, cgroup version 2 or 1; elsewhere there is none to know of. A process that the kernel kills only gets SIGKILL.
"""

from dataclasses import dataclass
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
NO_LIMIT = 1 << 60  # version 1 has a number near 2^63 where it has none


@dataclass(frozen=True)
class Kills:
    """How many processes the kernel has killed for memory so far; limit and peak in bytes, None where not known.

    On a kernel that keeps no peak, it is what is used now.
    """

    count: int
    limit: int | None
    peak: int | None


def kills(mount: Path = MOUNT, own: Path = OWN) -> Kills:
    """Return the kills in this process's cgroup."""
    for path, controllers in _memberships(own):
        version_2 = not controllers
        for folder in (mount / ("" if version_2 else "memory") / path, mount / ("" if version_2 else "memory")):
            events = folder / ("memory.events" if version_2 else "memory.oom_control")
            if (count := _field(events, "oom_kill")) is not None:
                limit, peak, used = (_number(folder / name) for name in (_NAMES_2 if version_2 else _NAMES_1))
                return Kills(count, limit if limit is not None and limit < NO_LIMIT else None, peak or used)
    return Kills(0, None, None)


_NAMES_1 = ("memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.usage_in_bytes")
_NAMES_2 = ("memory.max", "memory.peak", "memory.current")  # Linux has a peak since 5.19


class MemoryKills:
    """Says of processes that have ended by SIGKILL whether the kernel killed for memory: once for each of its kills."""

    def __init__(self, mount: Path = MOUNT, own: Path = OWN) -> None:
        self._where = (mount, own)
        self._count = kills(*self._where).count
        self._unnamed = 0

    def word(self) -> str:
        """Return "", or a clause with limit and peak, where there was such a kill."""
        now = kills(*self._where)
        self._unnamed += max(0, now.count - self._count)
        self._count = now.count
        if not self._unnamed:
            return ""
        self._unnamed -= 1
        return f"out of memory: {sizes(now)}" if sizes(now) else "out of memory"


def sizes(memory: Kills) -> str:
    """Return limit and peak in words, as far as they are known."""
    parts = [f"{name} {_size(value)}" for name, value in (("limit", memory.limit), ("peak", memory.peak)) if value]
    return ", ".join(parts)


def _memberships(own: Path) -> list[tuple[str, str]]:
    """Return (path, controllers) of the hierarchies that may count memory: version 2 has no controllers named."""
    try:
        rows = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return []
    found = [(row[2].lstrip("/"), row[1]) for row in rows if len(row) == 3]
    return [(path, names) for path, names in found if not names or "memory" in names.split(",")]


def _field(path: Path, name: str) -> int | None:
    try:
        rows = dict(line.split(" ", 1) for line in path.read_text().splitlines() if " " in line)
        return int(rows[name])
    except (OSError, KeyError, ValueError):
        return None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max" is no limit
        return None


def _size(count: int) -> str:
    return f"{count / 2**20:.0f} MiB"
