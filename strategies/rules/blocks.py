"""Blocks of arrays, dealt to threads: what every aggregation shares that works in place of a second copy of it all."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from numpy.typing import NDArray

from fl_common.messages.arrays import BLOCK

THREADED = 1 << 18  # elements from which a second thread pays for its start
COMPILED = 1 << 20  # elements from which numba's kernels pay for their import and compilation
MOST_THREADS = 8

Span = tuple[str, int, int]  # name, first element, element after the last


def threads_of(wanted: int | None) -> int:
    """Return how many threads to use: `wanted`, by default one for each core, and at most eight."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(wanted or cores, MOST_THREADS)


def shares(arrays: Mapping[str, NDArray[Any]], threads: int, size: int = BLOCK) -> list[list[Span]]:
    """Deal the arrays' blocks of `size` elements to threads, neighbours to the same one."""
    spans = list(_spans(arrays, size))
    most = max(1, -(-len(spans) // threads))
    return [spans[start : start + most] for start in range(0, len(spans), most)] or [[]]


def _spans(arrays: Mapping[str, NDArray[Any]], size: int) -> Iterator[Span]:
    for name, array in arrays.items():
        for start in range(0, array.size, size):
            yield name, start, min(start + size, array.size)
