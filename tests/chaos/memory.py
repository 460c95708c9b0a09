"""What a server's processes hold in memory: pages that no file backs, each counted once, however many share it.

A forked process shares its parent's pages until one of them writes, so the sum of what each says of itself counts
many twice; the kernel's proportional share (PSS) does not. Pages of files, which are TensorFlow's libraries, are left
out: their share falls and rises with every other process on the machine that maps the same file, and they are not what
a server can leak.
"""

from collections.abc import Callable
from pathlib import Path

import psutil

from tests.integration.conftest import descendants

COUNTED = ("Pss_Anon", "Pss_Shmem", "SwapPss")


def held(pid: int) -> int:
    """Return the bytes that a process holds; 0 where there is none."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.partition(":")[0] in COUNTED)


def of_tree(pid: int, role: Callable[[psutil.Process], str]) -> dict[str, int]:
    """Return the bytes that a process and all its descendants hold, summed by their roles."""
    found: dict[str, int] = {}
    for each in [psutil.Process(pid), *descendants(pid)]:
        found[role(each)] = found.get(role(each), 0) + held(each.pid)
    return found
