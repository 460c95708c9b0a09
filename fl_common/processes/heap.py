"""The C library's heap: blocks of the size of a model's arrays go back to the system as soon as they are freed.

glibc maps large blocks by themselves, but takes each that is freed for a reason to raise the size from which on it does
so, up to 32 MB, and keeps what is smaller. A server that passes a model on in pieces of 20 MB holds it once more then.
"""

import ctypes
from contextlib import suppress

M_MMAP_THRESHOLD = -3
LARGE_BYTES = 4 << 20


def give_large_blocks_back() -> None:
    """Fix that size for this process; other C libraries have no such habit."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
