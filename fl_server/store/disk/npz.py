"""Arrays of any names in an npz file, without pickle: written onto the disk, and read only where sizes are true."""

import math
import os
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl_common.errors import ParterreError, StoreError
from fl_common.processes import memory

if TYPE_CHECKING:  # every command knows the run store, and `fl --help` has no time for NumPy
    from numpy.typing import NDArray

UNREADABLE = (ValueError, KeyError, TypeError, EOFError, RuntimeError, struct.error, zipfile.BadZipFile)
_HEADERS = {(1, 0): "read_array_header_1_0", (2, 0): "read_array_header_2_0"}  # of NumPy's format, by its version
NATIVE = 1  # numpy.dtype.isbuiltin of NumPy's own types


def write_npz(path: Path, arrays: Mapping[str, "NDArray[Any]"]) -> dict[str, str]:
    """Write arrays of any names as `numpy.load` reads them, and onto the disk.

    Return the types that NumPy's format cannot name (bfloat16, ...), by array; their bytes are stored as unsigned.
    """
    import numpy as np

    foreign = {name: array.dtype.name for name, array in arrays.items() if array.dtype.isbuiltin != NATIVE}
    with path.open("wb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, array in arrays.items():
                stored = array.view(f"u{array.itemsize}") if name in foreign else array
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asanyarray(stored), allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    return foreign


def read_npz(path: Path, foreign: Mapping[str, str]) -> dict[str, "NDArray[Any]"]:
    """Return the arrays that `write_npz` wrote, in their order; `foreign` is what it returned.

    Raises StoreError where the file is damaged, and ParterreError where it is whole and does not fit into memory.
    """
    import ml_dtypes  # noqa: F401  registers bfloat16 and the float8s under their names
    import numpy as np

    try:
        _check_room(path, _size(path))
        with np.load(path, allow_pickle=False) as stored:
            return {
                name: stored[name].view(foreign[name]) if name in foreign else stored[name] for name in stored.files
            }
    except (*UNREADABLE, OSError) as error:
        raise StoreError(f"{path} is damaged: {type(error).__name__}: {error}") from None


def _check_room(path: Path, needed: int) -> None:
    there = memory.available()
    if there is not None and needed > there:
        raise ParterreError(
            f"{path} takes {needed // 1_000_000:,} MB of memory once it is loaded; {there // 1_000_000:,} MB are "
            "there. Free some, then try again."
        )


def _size(path: Path) -> int:
    """Return the bytes of all arrays. Raises ValueError where one declares another size than it has in the file.

    Nothing is made for them yet, and several that share their bytes are refused.
    """
    import numpy as np

    whole, total = path.stat().st_size, 0
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > whole:
                raise ValueError(f"{info.filename} is compressed, or larger than the file that it is in")
            with archive.open(info) as member:
                read = _HEADERS.get(np.lib.format.read_magic(member))
                if read is None:
                    raise ValueError(f"{info.filename} is of another format")
                shape, _, dtype = getattr(np.lib.format, read)(member)
                declared, there = math.prod(shape) * dtype.itemsize, info.file_size - member.tell()
            if dtype.hasobject or min((*shape, 0)) < 0 or declared != there:
                raise ValueError(f"{info.filename} declares {declared:,} bytes and has {there:,}")
            total += info.file_size
    if total > whole:
        raise ValueError("its arrays share their bytes")
    return total
