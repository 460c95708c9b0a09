"""Standard output for the events alone: what a task prints in this process must not stand among them."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TextIO

from fl_common.processes.streams import lossy


@contextmanager
def apart() -> Iterator[TextIO]:
    """Give a stream to standard output; all else that this process writes there goes to standard error meanwhile."""
    out = sys.stdout
    out.flush()
    if _descriptor(out) != 1:
        with redirect_stdout(sys.stderr):
            yield out
        return
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        own = lossy(kept)
        with redirect_stdout(sys.stderr):
            yield own
        own.flush()
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _descriptor(stream: TextIO) -> int:
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return -1
