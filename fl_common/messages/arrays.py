"""NumPy arrays by name <-> Flower's ArrayRecord, with every check that a stranger's bytes need. Free of TensorFlow.

Sent: model -> `weights.weights_of` -> `encode` -> message. Received: message -> `decode_record` -> `check_finite`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from io import BytesIO
from math import prod
from tokenize import TokenError
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.lib import format as npy
from numpy.typing import NDArray

from fl_common.errors import RejectedReply, StrategyError

NUMPY = "numpy.ndarray"
BLOCK = 3 << 16  # elements handled at once: few enough for the caches, enough that calls into NumPy cost nothing
PIECE = 1 << 20  # elements looked through at a time: one thread of BLAS reads as fast as memory gives
EXTENDED = ("bfloat16", "float8_e4m3fn", "float8_e5m2")  # Keras dtypes that NumPy's file format only knows as raw bytes
# What NumPy's own parser of headers may raise on bytes that are none; a property test looks for others.
HEADER_ERRORS = (ValueError, TypeError, SyntaxError, KeyError, IndexError, TokenError, RecursionError, MemoryError)

VERSION_1 = b"\x93NUMPY\x01\x00"

Arrays = dict[str, NDArray[Any]]
Header = tuple[tuple[int, ...], bool, np.dtype[Any], int]  # shape, Fortran order, dtype, offset of the data


@dataclass(frozen=True)
class Signature:
    """What a model's arrays must look like: (name, shape, dtype), in the model's order."""

    entries: tuple[tuple[str, tuple[int, ...], str], ...]

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> "Signature":
        """Return the signature of `arrays`."""
        return cls(tuple((name, array.shape, array.dtype.name) for name, array in arrays.items()))

    @cached_property
    def names(self) -> frozenset[str]:
        """The names, without order."""
        return frozenset(name for name, _, _ in self.entries)

    @cached_property
    def nbytes(self) -> int:
        """Bytes of one copy of the model."""
        return sum(prod(shape) * dtype_of(dtype).itemsize for _, shape, dtype in self.entries)


def dtype_of(name: str) -> np.dtype[Any]:
    """Return the dtype called `name`; bfloat16 and the float8 types come from ml_dtypes, which TensorFlow brings."""
    if name in EXTENDED:
        import ml_dtypes

        extended: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return extended
    return np.dtype(name)


def is_float(dtype: np.dtype[Any]) -> bool:
    """Say whether arrays of `dtype` are averaged. Integers, booleans and strings are kept as they are."""
    return dtype.kind in "fc" or dtype.name in EXTENDED


def encode(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """Return `arrays` as an ArrayRecord with the same names, readable by Flower's own `Array.numpy()`."""
    return ArrayRecord({name: _encode(np.asarray(array)) for name, array in arrays.items()})


def _encode(array: NDArray[Any]) -> Array:
    # np.save writes through a growing buffer and copies it out again; one join is one copy.
    contiguous = np.ascontiguousarray(array).reshape(array.shape)
    data = b"".join((_written_header(array.dtype, array.shape), contiguous.reshape(-1).view(np.uint8).data))
    return Array(dtype=array.dtype.name, shape=array.shape, stype=NUMPY, data=data)


@lru_cache(maxsize=4096)
def _written_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    # Writing it costs more than copying ten thousand numbers, and the arrays of a model have the same in every round.
    header = BytesIO()
    npy.write_array_header_1_0(header, npy.header_data_from_array_1_0(np.empty(shape, dtype)))
    return header.getvalue()


def decode(array: Array) -> NDArray[Any]:
    """Return a read-only view over `array.data`, without a copy.

    Raises RejectedReply("malformed") for anything that is not exactly one array in NumPy's format; never unpickles.
    """
    if array.stype != NUMPY:
        raise RejectedReply("malformed", f"expected serialisation {NUMPY!r}; got {array.stype!r}")
    shape, fortran, dtype, offset = _header(array.data)
    if dtype.kind == "V" and array.dtype in EXTENDED:
        dtype = dtype_of(array.dtype)
    count = prod(shape)
    if count * dtype.itemsize != len(array.data) - offset:
        expected = count * dtype.itemsize
        raise RejectedReply("malformed", f"expected {expected} bytes of data; got {len(array.data) - offset}")
    values = np.frombuffer(array.data, dtype=dtype, count=count, offset=offset) if count else np.empty(0, dtype)
    try:
        return values.reshape(shape[::-1]).T if fortran else values.reshape(shape)
    except ValueError as error:
        raise RejectedReply("malformed", f"expected a shape; got {shape}: {error}") from None


def _header(data: bytes) -> Header:
    # Parsing costs 60 us an array, and every reply of a round has the same headers: short ones are remembered.
    length = 10 + int.from_bytes(data[8:10], "little") if data[:8] == VERSION_1 else 0
    return _parse_short(data[:length]) if 10 < length <= min(256, len(data)) else _parse(data)


@lru_cache(maxsize=4096)
def _parse_short(header: bytes) -> Header:
    return _parse(header)


def _parse(data: bytes) -> Header:
    stream = BytesIO(data)  # shares the bytes, does not copy them
    try:
        version = npy.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"format version {version}")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(stream)
        if dtype.hasobject or dtype.itemsize == 0:
            raise ValueError(f"dtype {dtype}")
        if dtype.subdtype is not None or any(side < 0 for side in shape):
            raise ValueError(f"dtype {dtype}, shape {shape}")
    except HEADER_ERRORS as error:
        raise RejectedReply("malformed", f"expected NumPy's format; got {len(data)} bytes: {error}") from None
    return shape, fortran, dtype, stream.tell()


def decode_record(record: ArrayRecord, signature: Signature) -> Arrays:
    """Return the record's arrays as read-only views, in the signature's order.

    Raises RejectedReply with reason "name", "shape", "dtype" or "malformed". Finiteness is not looked at.
    """
    if record.keys() != signature.names:
        missing, extra = sorted(signature.names - record.keys()), sorted(record.keys() - signature.names)
        raise RejectedReply("name", f"missing {_some(missing)}; not of this model {_some(extra)}")
    return {name: _decode_checked(record[name], name, shape, dtype) for name, shape, dtype in signature.entries}


def _decode_checked(array: Array, name: str, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    try:
        values = decode(array)
    except RejectedReply as error:
        raise RejectedReply(error.reason, f"{name}: {error.detail}") from None
    if values.shape != shape:
        raise RejectedReply("shape", f"{name}: expected {shape}; got {values.shape}")
    if values.dtype != dtype_of(dtype):
        raise RejectedReply("dtype", f"{name}: expected {dtype}; got {values.dtype}")
    return values


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "nothing"


def check_finite(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Raise RejectedReply("not-finite") that names the first float array holding a NaN or an infinity."""
    for name, array in arrays.items():
        if is_float(array.dtype) and not all(finite(piece) for piece in blocks(flat(array), PIECE)):
            raise not_finite(name)


def not_finite(name: str) -> RejectedReply:
    """Return the error for the array called `name`."""
    return RejectedReply("not-finite", f"{name} holds a NaN or an infinity")


def finite(block: NDArray[Any]) -> bool:
    """Say whether a block holds only finite values. One read of memory and, nearly always, no array of booleans."""
    if block.dtype.char in "fd":
        with np.errstate(all="ignore"):
            if np.isfinite(np.dot(block, block)):  # a finite sum of squares has finite terms; huge ones: look closer
                return True
    return bool(np.isfinite(block).all())


def flat(array: NDArray[Any]) -> NDArray[Any]:
    """Return `array` in one dimension, in C order; a view where it is contiguous."""
    return array.reshape(-1)


def blocks(array: NDArray[Any], size: int = BLOCK) -> Iterator[NDArray[Any]]:
    """Yield one-dimensional `array` in pieces of `size` elements."""
    return (array[start : start + size] for start in range(0, array.size, size))


def conform(arrays: ArrayRecord, like: Mapping[str, NDArray[Any]]) -> Arrays:
    """Return any strategy's result with the names, order, dtypes and shapes of `like`.

    Integer and boolean arrays are taken from `like`: they are kept, never averaged. Raises StrategyError where names or
    sizes differ, or where an array cannot be read.
    """
    if arrays.keys() != like.keys():
        different = sorted(arrays.keys() ^ like.keys())
        raise StrategyError(f"the strategy returned other names than the model's: {_some(different)} differ")
    return {name: _conform(arrays[name], name, old) if is_float(old.dtype) else old for name, old in like.items()}


def conformed(arrays: ArrayRecord, like: Mapping[str, NDArray[Any]]) -> tuple[Arrays, ArrayRecord]:
    """Return what `conform` does, and the same as it travels: nothing is copied that has the right form already."""
    conforming = conform(arrays, like)
    return conforming, ArrayRecord({name: _as_sent(arrays[name], array) for name, array in conforming.items()})


def _as_sent(array: Array, values: NDArray[Any]) -> Array:
    shape, fortran, dtype, _ = _header(array.data)
    described = (array.stype, array.dtype, tuple(array.shape), shape, fortran)
    right = described == (NUMPY, values.dtype.name, values.shape, values.shape, False)
    return array if right and is_float(dtype) and dtype == values.dtype else _encode(values)


def _conform(array: Array, name: str, like: NDArray[Any]) -> NDArray[Any]:
    try:
        values = decode(array)
    except RejectedReply as error:
        raise StrategyError(f"the strategy returned {name} in a form that cannot be read: {error.detail}") from None
    if values.size != like.size:
        raise StrategyError(f"the strategy returned {name} with shape {values.shape}; the model's is {like.shape}")
    return values.reshape(like.shape).astype(like.dtype, copy=False)


def nbytes(arrays: Iterable[NDArray[Any]]) -> int:
    """Return the bytes that `arrays` hold together."""
    return sum(array.nbytes for array in arrays)
