"""Small arrays travel together: over gRPC every object of a message is a call of its own, and an array is two objects.

Applied to a message's content just before it leaves and just after it has come, so nothing else sees it. Arrays of
SMALL bytes and more stay as they are: for those the calls cost little beside the bytes.
"""

import json
import struct
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fl_common.errors import RejectedReply
from fl_common.trust.untrusted_text import clean

SMALL = 1 << 16
SUFFIX = "~small"
FIELD = "arrays"
LENGTH = struct.Struct("<I")
MOST_ARRAYS = 50_000  # of one record
LONGEST_NAME, MOST_SIDES = 500, 32  # of an array: the characters of its name, and its dimensions
HEADER_BYTES = 8192  # of the header, an array


def pack(content: RecordDict) -> RecordDict:
    """Return the content with the small arrays of each ArrayRecord in one record beside it, KEY~small.

    Its one field holds: the header's length (uint32, little-endian), the header (JSON: the record's names in order, and
    [name, dtype, shape, stype, bytes] of each small array), the arrays' bytes one after the other.
    """
    packed = RecordDict()
    for key, record in content.items():
        if not isinstance(record, ArrayRecord) or len(small := _small(record)) < 2:
            packed[key] = record
            continue
        packed[key + SUFFIX] = ConfigRecord({FIELD: _joined(record, small)})
        if len(small) < len(record):
            packed[key] = ArrayRecord({name: array for name, array in record.items() if name not in small})
    return packed


def is_packed(content: RecordDict) -> bool:
    """Say whether `pack` changed this content."""
    return any(key.endswith(SUFFIX) for key in content)


def unpack(content: RecordDict, *, most: int = MOST_ARRAYS) -> RecordDict:
    """Return the content as it was before `pack`. Raises RejectedReply("malformed") for anything else.

    most: the arrays that a record may hold; nothing is built from the header of more.
    """
    if not is_packed(content):
        return content
    plain = RecordDict()
    for key, record in content.items():
        if not key.endswith(SUFFIX):
            if key + SUFFIX not in content:
                plain[key] = record
            continue
        name = key.removesuffix(SUFFIX)
        plain[name] = _split(record, content.get(name, ArrayRecord()), most)
    return plain


def _small(record: ArrayRecord) -> list[str]:
    return [name for name, array in record.items() if len(array.data) < SMALL]


def _joined(record: ArrayRecord, small: list[str]) -> bytes:
    described = [[name, a.dtype, a.shape, a.stype, len(a.data)] for name in small for a in [record[name]]]
    header = json.dumps([list(record), described]).encode()
    return b"".join((LENGTH.pack(len(header)), header, *(record[name].data for name in small)))


def _split(record: Any, large: Any, most: int) -> ArrayRecord:
    try:
        data = record[FIELD]
        (length,) = LENGTH.unpack_from(data)
        if length > min(len(data), HEADER_BYTES * (most + 1)):
            raise ValueError(f"a header of {length} bytes for at most {most} arrays")
        order, described = json.loads(data[LENGTH.size : LENGTH.size + length])
        if max(len(order), len(described)) > most:
            raise ValueError(f"more than {most} arrays")
        arrays, offset = dict(large), LENGTH.size + length
        for name, dtype, shape, stype, size in described:
            if _named(name) in arrays or not 0 <= size <= len(data) - offset or len(shape) > MOST_SIDES:
                raise ValueError(f"array {clean(name)} of {clean(size)} bytes")
            arrays[name] = Array(str(dtype), tuple(map(int, shape)), str(stype), data[offset : offset + size])
            offset += size
        if offset != len(data) or sorted(order) != sorted(arrays):
            raise ValueError("bytes or names are left over")
        return ArrayRecord({name: arrays[name] for name in order})
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, struct.error, RecursionError) as error:
        why = clean(f"{type(error).__name__}: {error}")
        raise RejectedReply("malformed", f"small arrays cannot be taken apart: {why}") from None


def _named(name: Any) -> str:
    """Return a name from outside that may be shown. Raises ValueError for any other."""
    if not isinstance(name, str) or len(name) > LONGEST_NAME or not name.isprintable():
        raise ValueError(f"an array has the name {clean(name, most=80)}")
    return name
