"""What a machine keeps between processes, with locks: one process makes it, the others wait and read."""

import fcntl
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)


def cache_dir() -> Path:
    """Return the folder of what is kept: $FL_CACHE, or ~/.cache/parterre."""
    return Path(os.environ.get("FL_CACHE") or Path.home() / ".cache" / "parterre")


@contextmanager
def locked(folder: str, name: str) -> Iterator[Path]:
    """Hold the lock `name` of a folder in the cache, and give the folder. Raises OSError where it is not writable."""
    path = cache_dir() / folder
    path.mkdir(parents=True, exist_ok=True)
    with (path / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path


def kept(folder: str, name: str, compute: Callable[[], list[NDArray[Any]]]) -> list[NDArray[Any]]:
    """Return the arrays [n_i] kept as `name`; the first to ask computes them while others that ask wait.

    A damaged file, or a cache that cannot be written, is logged as a warning and the arrays are computed.
    """
    try:
        with locked(folder, name) as path:
            file = path / f"{name}.npz"
            found = _read(file)
            if found is None:
                found = compute()
                _write(file, found)
            return found
    except OSError as error:
        log.warning("%s cannot be used (%s), so %s are computed anew. Set FL_CACHE.", cache_dir(), error, folder)
        return compute()


def _read(path: Path) -> list[NDArray[Any]] | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            return list(np.split(file["values"], file["cuts"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, EOFError, BadZipFile) as error:
        log.warning("%s is damaged (%s) and is computed anew.", path, error)
        return None


def _write(path: Path, arrays: list[NDArray[Any]]) -> None:
    """Write whole or not at all: into a file beside it, then renamed."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.savez(file, values=np.concatenate(arrays), cuts=np.cumsum([len(array) for array in arrays])[:-1])
        Path(temporary).replace(path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise
