"""Exchanges of rows compiled by numba: imported only for models that are large enough to pay for it.

A strip of all rows stays in the first cache while every pair is exchanged; each exchange is a vector minimum and
maximum.
"""

import numpy as np
from numba import njit

STRIP = 1 << 12  # elements of all rows together


@njit(nogil=True)
def exchange(room, pairs):  # type: ignore[no-untyped-def]
    """Exchange rows of `room` element by element, in place, so that the first of each pair holds the smaller."""
    rows, width = room.shape
    strip = max(16, STRIP // rows)
    for start in range(0, width, strip):
        stop = min(start + strip, width)
        for pair in range(pairs.shape[0]):
            low = room[pairs[pair, 0], start:stop]
            high = room[pairs[pair, 1], start:stop]
            for i in range(low.size):
                a, b = low[i], high[i]
                low[i] = a if a < b else b
                high[i] = b if a < b else a
    return room


@njit(nogil=True)
def average(room, first, stop):  # type: ignore[no-untyped-def]
    """Return the mean of rows `first` to `stop` - 1, in float64."""
    total = np.zeros(room.shape[1])
    for row in range(first, stop):
        values = room[row]
        for i in range(total.size):
            total[i] += values[i]
    return total / (stop - first)


@njit(nogil=True)
def average_nearest(room, keep):  # type: ignore[no-untyped-def]
    """Return the mean of the `keep` values of each column that are nearest to its median, in float64; rows are sorted.

    They stand side by side. The window moves up while its lowest value is farther off than the next above it.
    """
    rows, width = room.shape
    means = np.empty(width)
    for i in range(width):
        middle = (np.float64(room[(rows - 1) // 2, i]) + np.float64(room[rows // 2, i])) / 2
        first = 0
        while first + keep < rows and middle - room[first, i] > room[first + keep, i] - middle:
            first += 1
        total = 0.0
        for row in range(first, first + keep):
            total += room[row, i]
        means[i] = total / keep
    return means
