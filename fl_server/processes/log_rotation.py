"""The logs of a server's processes, kept below a size: what is full is moved aside, into one file that is overwritten.

The processes hold their logs open and append, so a log is copied and emptied in its place. What is written in between,
a moment, is lost.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

MOST_BYTES = 10_000_000


def rotate(logs: Sequence[Path], most: int = MOST_BYTES) -> None:
    """Empty each log that has grown beyond `most` bytes, and keep its content as NAME.1 where there is room for it."""
    for path in logs:
        if _size(path) > most:
            _keep(path, path.with_name(f"{path.name}.1"))
            os.truncate(path, 0)


def _keep(path: Path, aside: Path) -> None:
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with path.open("rb") as source, os.fdopen(descriptor, "wb") as target:
            shutil.copyfileobj(source, target)
    except OSError:  # a full disk, say: emptying the log makes room
        aside.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
