"""Output of a process: what a full disk, or a reader that is gone, does not take is lost, and nothing else is."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class _Lossy(io.FileIO):
    """A file whose writes never fail. What a process says is no reason to end it."""

    refused: OSError | None = None

    def write(self, content: Any) -> int:
        try:
            return super().write(content) or 0
        except OSError as error:
            self.refused = error
            return memoryview(content).nbytes


def refused(stream: TextIO) -> OSError | None:
    """Return what the last thing was that kept a lossy stream from being written; None where nothing did."""
    return getattr(getattr(stream.buffer, "raw", None), "refused", None)


def lossy(descriptor: int) -> TextIO:
    """Return a text stream onto an open descriptor, line by line, that drops what cannot be written."""
    raw = io.BufferedWriter(_Lossy(descriptor, "w", closefd=False))
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)


@contextmanager
def without_stderr() -> Iterator[None]:
    """Drop what this process writes to standard error meanwhile, libraries that are no Python included."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
