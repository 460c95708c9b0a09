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

from fl_common.errors import DataError
from fl_common.examples import Examples, normalised

TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def load(folder: Path) -> tuple[Examples, Examples]:
    """Return (train, test) of a folder with train-images, train-labels, t10k-images and t10k-labels: labels int64 [n].

    Names as they are published, `train-images-idx3-ubyte`, or with a dot, `train-images.idx3-ubyte`; with .gz or not.
    """
    if not folder.is_dir():
        raise DataError(f"data_dir {folder} is no folder. Set it to one that holds the IDX files.")
    return _part(folder, "train"), _part(folder, "t10k")


def read(path: Path) -> NDArray[Any]:
    """Return the array of an IDX file; a plain file is mapped, so that only what is used is read. Raises DataError."""
    try:
        content = _gunzipped(path) if path.suffix == ".gz" else np.memmap(path, np.uint8, "r")
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}. Fetch it again.") from None
    dtype, shape, start = _header(content[:64].tobytes(), path)
    expected = start + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise DataError(f"{path} must have {expected} bytes for shape {shape}; it has {len(content)}. Fetch it again.")
    array = content[start:].view(dtype).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)


def _gunzipped(path: Path) -> NDArray[np.uint8]:
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), np.uint8)


def _header(head: bytes, path: Path) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in TYPES or len(head) < 4 + 4 * head[3]:
        raise DataError(f"{path} is no IDX file: it begins with the bytes {head[:4].hex(' ')}.")
    shape = struct.unpack_from(f">{head[3]}I", head, 4)
    return np.dtype(TYPES[head[2]]), shape, 4 + 4 * head[3]


def _part(folder: Path, part: str) -> Examples:
    x, y = (read(_find(folder, f"{part}-{kind}")) for kind in ("images", "labels"))
    return normalised((np.asarray(x), y.astype(np.int64)), f"the {part} files of {folder}")


def _find(folder: Path, stem: str) -> Path:
    found = sorted(folder.glob(f"{stem}[-.]idx?-ubyte")) + sorted(folder.glob(f"{stem}[-.]idx?-ubyte.gz"))
    if not found:
        names = sorted(path.name for path in folder.iterdir())[:8]
        raise DataError(f"data_dir {folder} has no {stem}-idx?-ubyte or .gz; it has {', '.join(names) or 'nothing'}.")
    return found[0]
