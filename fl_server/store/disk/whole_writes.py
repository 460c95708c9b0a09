"""Writes that are whole or absent, and the operating system's refusals in plain words; used by the run store."""

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

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
SQLITE = {
    "database or disk is full": errno.ENOSPC,
    "attempt to write a readonly database": errno.EROFS,
}
LEAST_ROOM = 1 << 20  # bytes


@contextmanager
def plainly(doing: str) -> Iterator[None]:
    """Turn an OSError of the body into a StoreError: "cannot DOING: the disk is full. ..."."""
    try:
        yield
    except OSError as error:
        why = WORDS.get(error.errno or 0) or f"{error.strerror or error}."
        raise StoreError(f"cannot {doing}: {why}") from error


def told(error: OSError | sqlite3.Error) -> str:
    """Return what the operating system, or SQLite, refused, in a sentence; "" where that is none of these refusals."""
    if isinstance(error, sqlite3.Error):
        return of_database(str(error))
    why = WORDS.get(error.errno or 0)
    if why is None:
        return ""
    return f"cannot use {error.filename}: {why}" if error.filename else f"{error.strerror}: {why}"


def of_database(text: str) -> str:
    """Return what SQLite says of the disk, whoever quotes it, in a sentence; "" where it says something else."""
    number = next((number for words, number in SQLITE.items() if words in text), None)
    return f"a database cannot be written: {WORDS[number]}" if number is not None else ""


def is_damage(error: Exception) -> bool:
    """Say whether an error of SQLite means that its file is damaged: not the disk's, and no lock of somebody else's."""
    passing = ("locked", "busy", "unable to open", "disk I/O", "interrupted")
    return isinstance(error, sqlite3.DatabaseError) and not told(error) and not any(w in str(error) for w in passing)


def in_a_line(error: Exception) -> str:
    """Return an error's text without its line breaks."""
    return " ".join(str(error).split())


def away(path: Path) -> str:
    """Return the command that moves a database with its journals out of the way."""
    return f"mkdir {path.parent}/damaged && mv {path}* {path.parent}/damaged"


def check_room(directory: Path) -> None:
    """Raise StoreError where the disk is full: then the processes could not even log why they ended."""
    if shutil.disk_usage(directory).free < LEAST_ROOM:
        raise StoreError(f"the disk that holds {directory} is full. Free some space there, then start again.")


def content(path: Path, most: int) -> bytes:
    """Return what a regular file of at most `most` bytes holds. Raises StoreError for anything else, unopened."""
    with plainly(f"read {path}"):
        if not path.is_file() and path.exists():
            raise StoreError(f"{path} is damaged: it is not a regular file.")
        size = path.stat().st_size
        if size > most:
            raise StoreError(f"{path} is damaged: it has {size:,} bytes; at most {most:,} were expected.")
        return path.read_bytes()


def sync(path: Path) -> None:
    """Force a file, or the entries of a directory, onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def note(file: IO[str], text: str) -> None:
    """Write a text into an open lock file instead of what is there, past its buffer: closing it cannot fail then."""
    file.truncate(0)
    os.pwrite(file.fileno(), text.encode(), 0)


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
