"""One server at a time in a directory: a lock of the operating system, which ends with the process that holds it."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from fl_common.errors import StoreError
from fl_server.store.disk.whole_writes import note, plainly

PREFIX = "pymp-"  # of multiprocessing's temporary directories


@contextmanager
def alone(path: Path, what: str) -> Iterator[bool]:
    """Hold the lock file `path`; yield whether the one who held it before was killed. Nothing is left in the end.

    Raises StoreError, which names `what` is in use and the process that uses it, where another holds the lock.
    """
    with plainly(f"lock {path}"):
        crashed = path.exists()
        file = _locked(path)
    if file is None:
        holder = path.read_text(errors="replace").strip() or "unknown"
        raise StoreError(f"{what} is in use by another server (process {holder}). Stop that one, or name another.")
    with file:
        with plainly(f"lock {path}"):
            note(file, str(os.getpid()))
        try:
            yield crashed
        finally:
            path.unlink(missing_ok=True)


def _locked(path: Path) -> IO[str] | None:
    """Return the file, locked; None where another holds it. One that was removed while it was opened is not the one."""
    while True:
        file = path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            return file
        file.close()


def holder(path: Path) -> int | None:
    """Return the process that holds the lock file `path`; None where nobody does."""
    try:
        with path.open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = path.read_text(errors="replace").strip()
        return int(text) if text.isdecimal() else None
    except OSError:
        return None
    return None


def sweep(note: Path, own: Path) -> None:
    """Remove the temporary directory of a server that was killed, which `note` names, and note this one's.

    Python keeps the socket of its forking helper there, and removes it only where the process ends in peace.
    """
    with plainly(f"note the temporary directory in {note}"):
        noted = note.read_bytes() if note.exists() else b""
        earlier = Path(os.fsdecode(noted))
        if earlier != own and earlier.name.startswith(PREFIX) and b"\0" not in noted:
            shutil.rmtree(earlier, ignore_errors=True)
        note.write_text(str(own))
