"""Writes that are whole or absent, and the operating system's refusals in plain words; used by the run store."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fl_common.errors import StoreError

WORDS = {
    errno.ENOSPC: "the disk is full. Free some space there, then go on with `fl resume`.",
    errno.EDQUOT: "the disk quota is used up. Free some space there, then go on with `fl resume`.",
    errno.EFBIG: "the file would be larger than this process may write. Raise the limit (ulimit -f), then `fl resume`.",
    errno.EROFS: "the file system is read-only. Make it writable, or name another directory with --out.",
    errno.EACCES: "permission is denied. Give this user the right to write there, or name another with --out.",
    errno.EPERM: "permission is denied. Give this user the right to write there, or name another with --out.",
    errno.ENOENT: "a file or directory of it is gone. Was it moved or removed meanwhile?",
    errno.ENOTDIR: "a part of that path is a file, not a directory. Name another directory with --out.",
    errno.EEXIST: "there is a file of that name. Name another directory with --out.",
}


@contextmanager
def plainly(doing: str) -> Iterator[None]:
    """Turn an OSError of the body into a StoreError: "cannot DOING: the disk is full. ..."."""
    try:
        yield
    except OSError as error:
        why = WORDS.get(error.errno or 0) or f"{error.strerror or error}."
        raise StoreError(f"cannot {doing}: {why}") from error


def sync(path: Path) -> None:
    """Force a file, or the entries of a directory, onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that a reader, or a crash, sees the old file or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
