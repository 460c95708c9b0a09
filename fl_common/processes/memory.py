"""How much memory there is, asked before something large is loaded: a process that is killed for it says nothing."""

from pathlib import Path

from fl_common.errors import DataError

GROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


def available() -> int | None:
    """Return the bytes that this process can still take: of the machine, and of its container. None: it is not told."""
    found = [each for each in (_of_machine(), _of_group()) if each is not None]
    return min(found) if found else None


def check_room(needed: int, path: Path, *, there: int | None = None) -> None:
    """Raise DataError where there are fewer than the `needed` bytes that the content of `path` takes once loaded."""
    there = available() if there is None else there
    if there is not None and needed > there:
        raise DataError(
            "{path} takes {needed} MB of memory once it is loaded; {there} MB are there. "
            "Split or shrink it, or load parts of it in the task's load_partition.",
            path=path,
            needed=-(-needed // 1_000_000),
            there=there // 1_000_000,
        )


def _of_machine() -> int | None:
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _of_group() -> int | None:
    try:
        limit, used = ((GROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return None
    return max(0, int(limit) - int(used)) if limit.isdecimal() and used.isdecimal() else None
