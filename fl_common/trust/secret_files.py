"""Files that hold secrets: written whole with mode 0600, in directories of mode 0700; refused where others can read."""

import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fl_common.errors import SecretError

OTHERS = stat.S_IRWXG | stat.S_IRWXO


def leave_no_core() -> None:
    """Have a crash of this process, and of those that it starts, write no file of its memory: there are keys in it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def make_directory(path: Path) -> Path:
    """Make a directory that only its owner can enter, or make an existing one so. Returns it."""
    with named(f"make the directory {path}"):
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.stat().st_mode & OTHERS:
            path.chmod(0o700)
    return path


def write(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a file whole or not at all: never readable by others on its way, not even for a moment."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    with named(f"write {path}"):
        try:
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, mode)
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)


def read(path: Path, what: str) -> bytes:
    """Return the content of a secret file. Raises SecretError where it is missing, or where others can read it."""
    with named(f"read {what} {path}"):
        descriptor = os.open(path, os.O_RDONLY)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) and status.st_mode & OTHERS and not _group_may(status):
                raise SecretError(
                    f"{what} {path} can be read by others (mode {stat.S_IMODE(status.st_mode):04o}). "
                    f"Make it yours alone: chmod 600 {path}"
                )
            return file.read()


def _group_may(status: os.stat_result) -> bool:
    """Say whether a file is root's and readable by this process's own group only, as Kubernetes mounts a secret."""
    readable = stat.S_IMODE(status.st_mode) & OTHERS == stat.S_IRGRP
    return readable and status.st_uid == 0 and os.geteuid() != 0 and status.st_gid in {os.getegid(), *os.getgroups()}


@contextmanager
def named(doing: str) -> Iterator[None]:
    """Turn an OSError of the body into a SecretError: "cannot DOING: permission denied"."""
    try:
        yield
    except OSError as error:
        raise SecretError(f"cannot {doing}: {error.strerror or error}") from None
