"""IDX files, the format that MNIST and its kin are published in; plain or gzipped.

Format: two zero bytes, a type, the number of dimensions, the big-endian sizes, then the values (LeCun, MNIST, 1998).
"""

import gzip
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_common.data.examples import Examples, normalised
from fl_common.errors import DataError, ParterreError, Shown
from fl_common.processes.memory import check_room

HEAD_BYTES = 1028  # of the longest header
TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def load(folder: Path) -> tuple[Examples, Examples]:
    """Return (train, test) of a folder with train-images, train-labels, t10k-images and t10k-labels: labels int64 [n].

    Names as they are published, `train-images-idx3-ubyte`, or with a dot, `train-images.idx3-ubyte`; with .gz or not.
    """
    if not folder.is_dir():
        raise DataError("data_dir {folder} is no folder. Set it to one that holds the IDX files.", folder=folder)
    return _part(folder, "train"), _part(folder, "t10k")


def read(path: Path) -> NDArray[Any]:
    """Return the array of an IDX file; a plain file is mapped, so that only what is used is read. Raises DataError."""
    try:
        content = _gunzipped(path) if path.suffix == ".gz" else np.memmap(path, np.uint8, "r")
    except ParterreError:
        raise
    except Exception as error:  # noqa: BLE001  gzip, zlib and the system have their own
        raise DataError("{path} cannot be read: {error}. Fetch it again.", path=path, error=error) from None
    dtype, shape, start = _header(content[:HEAD_BYTES].tobytes(), path)
    expected = start + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise DataError(
            "{path} must have {expected} bytes for shape {shape}; it has {size}. Fetch it again.",
            path=path,
            expected=expected,
            shape=shape,
            size=len(content),
        )
    array = content[start:].view(dtype).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)


def _gunzipped(path: Path) -> NDArray[np.uint8]:
    """Return what a file unpacks to, one byte beyond what its header declares at most: that is too long already."""
    with gzip.open(path) as file:
        head = file.read(HEAD_BYTES)
        dtype, shape, start = _header(head, path)
        declared = start + math.prod(shape) * dtype.itemsize
        check_room(declared, path)
        return np.frombuffer(head + file.read(max(0, declared + 1 - len(head))), np.uint8)


def _header(head: bytes, path: Path) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in TYPES or len(head) < 4 + 4 * head[3]:
        raise DataError("{path} is no IDX file: it begins with the bytes {head}.", path=path, head=head[:4].hex(" "))
    shape = struct.unpack_from(f">{head[3]}I", head, 4)
    return np.dtype(TYPES[head[2]]), shape, 4 + 4 * head[3]


def _part(folder: Path, part: str) -> Examples:
    x, y = (read(_find(folder, f"{part}-{kind}")) for kind in ("images", "labels"))
    return normalised((np.asarray(x), y.astype(np.int64)), f"the {part} files of {folder}")


def _find(folder: Path, stem: str) -> Path:
    named = (*sorted(folder.glob(f"{stem}[-.]idx?-ubyte")), *sorted(folder.glob(f"{stem}[-.]idx?-ubyte.gz")))
    found = [path for path in named if path.is_file()]  # no pipe, which may never come to an end
    if not found:
        names = sorted(path.name for path in folder.iterdir())[:8]
        raise DataError(
            "data_dir {folder} has no {stem}-idx?-ubyte or .gz; it has {names}.",
            folder=folder,
            stem=Shown(stem),
            names=", ".join(names) or "nothing",
        )
    return found[0]
