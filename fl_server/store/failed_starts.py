"""Runs that failed before their first round was committed: nothing is there to go on with, so their place is free."""

from pathlib import Path

from fl_server.store import checkpoints
from fl_server.store.disk import whole_writes
from fl_server.store.log import outlines
from fl_server.store.run_files import CHECKPOINTS

FOLDER = "failed-"
OVER = ("failed", "stopped")


def is_one(directory: Path, log: str) -> bool:
    """Say whether the run in a directory failed, or was stopped, without a committed round. `log`: its log's name."""
    if checkpoints.numbers(directory / CHECKPOINTS):
        return False
    found = outlines.of(directory / log)
    return not found.round and found.last.get("event") in OVER


def set_aside(directory: Path, lock: str) -> Path:
    """Move all that such a run left, but for the lock that the caller holds, into a folder of its own; return that."""
    number = 1
    while (aside := directory / f"{FOLDER}{number}").exists():
        number += 1
    with whole_writes.plainly(f"set aside what failed in {directory}"):
        aside.mkdir()
        for entry in sorted(directory.iterdir()):
            if entry.name != lock and not entry.name.startswith(FOLDER):
                entry.rename(aside / entry.name)
    return aside
