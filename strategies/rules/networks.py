"""Sorting networks: which pairs of rows to compare and exchange, in which order, and which of these may be left out.

Batcher's odd-even merge sort (Knuth, The Art of Computer Programming 3, 5.2.2, algorithm M), for any number of rows.
"""

from collections.abc import Iterator
from enum import Enum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Pair = tuple[int, int]  # the lower row takes the smaller value


class Need(Enum):
    """What is wanted of a row behind a pair: nothing, its place in a set whose sum is taken, or its very value."""

    NOTHING = 0
    SUM = 1
    VALUE = 2


@lru_cache(maxsize=256)
def sorting(rows: int) -> NDArray[np.int64]:
    """Return the pairs that sort `rows` rows, [pairs, 2]."""
    return _array(list(_merge_sort(rows)))


@lru_cache(maxsize=256)
def selecting(rows: int, first: int, stop: int) -> NDArray[np.int64]:
    """Return the pairs that put the values of ranks `first` to `stop` - 1 into those rows, in any order, [pairs, 2]."""
    needs = [Need.SUM if first <= row < stop else Need.NOTHING for row in range(rows)]
    kept = []
    for low, high in reversed(list(_merge_sort(rows))):
        if needs[low] is needs[high] and needs[low] is not Need.VALUE:
            continue  # both are thrown away, or both are summed: exchanging them changes nothing
        kept.append((low, high))
        needs[low] = needs[high] = Need.VALUE
    return _array(kept[::-1])


def _array(pairs: list[Pair]) -> NDArray[np.int64]:
    return np.array(pairs, np.int64).reshape(-1, 2)


def _merge_sort(rows: int) -> Iterator[Pair]:
    top = 1 << max(0, (rows - 1).bit_length() - 1)
    width = top
    while width > 0:
        distance, offset, sweep = width, 0, top
        while True:
            for low in range(rows - distance):
                if low & width == offset:
                    yield low, low + distance
            if sweep == width:
                break
            distance, offset, sweep = sweep - width, width, sweep >> 1
        width >>= 1
