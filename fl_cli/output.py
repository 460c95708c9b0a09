"""Standard output and error of a command: one that is full, closed or gone ends the showing, never what is shown."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from fl_common.processes.streams import lossy, refused

RUNNING = ("up", "simulate", "run", "resume", "follow", "server", "client")  # their work is not what they print


@contextmanager
def outlasting(command: str) -> Iterator[None]:
    """Replace both streams for the time of a command by such that drop what is not taken.

    Exits with 1 at the end where a command's output was its work, and it could not be written. That nobody reads any
    more, as behind `| head -1`, is no error.
    """
    _open_closed()
    before = sys.stdout, sys.stderr
    out, err = _replaced(sys.stdout, 1), _replaced(sys.stderr, 2)
    sys.stdout, sys.stderr = out, err
    try:
        yield
        _flush(out, err)
    except SystemExit as ended:
        _flush(out, err)
        if not ended.code and _failed(out, command):
            raise SystemExit(1) from None
        raise
    finally:
        _flush(out, err)
        sys.stdout, sys.stderr = before


def _open_closed() -> None:
    """Open the null device on standard descriptors that are closed: else a file of the run gets such a number."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def _replaced(stream: TextIO | None, descriptor: int) -> TextIO:
    try:
        if stream is not None and stream.fileno() != descriptor:
            return stream
    except OSError:  # no file: a test's
        return stream or lossy(descriptor)
    _flush(*([stream] if stream is not None else []))
    return lossy(descriptor)


def _flush(*streams: TextIO) -> None:
    for stream in streams:
        try:
            stream.flush()
        except (OSError, ValueError):
            continue


def _failed(out: TextIO, command: str) -> bool:
    error = refused(out)
    if error is None or error.errno == errno.EPIPE:
        return False
    whole = " The run itself is not harmed." if command in RUNNING else ""
    sys.stderr.write(f"standard output could not be written: {error.strerror}.{whole}\n")
    return command not in RUNNING
