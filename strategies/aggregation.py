"""How updates become one: pure rules over NumPy arrays by name. Fed by a strategy with replies that were admitted."""

import heapq
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_common.arrays import BLOCK, Arrays, flat, is_float, nbytes

THREADED = 1 << 18  # elements from which a second thread pays for its start
HELD_BYTES = 64 << 20
SMALL_BYTES = 8 << 20

Span = tuple[str, int, int]  # name, first element, element after the last


class WeightedMean:
    """sum(weight * arrays) / sum(weight), one update at a time: McMahan et al. 2017 (arXiv:1602.05629), algorithm 1.

    Sums are float64 and updated in place, in blocks that stay in cache, on up to eight threads (NumPy releases the
    interpreter's lock). Memory: two copies of a float32 model, whatever the number of updates.
    """

    def __init__(self, like: Mapping[str, NDArray[Any]], *, threads: int | None = None) -> None:
        self.weight = 0.0
        self._like = {name: array for name, array in like.items() if is_float(array.dtype)}
        self._kept = {name: array for name, array in like.items() if not is_float(array.dtype)}
        self._order = tuple(like)
        self._sums: Arrays = {}
        elements = sum(array.size for array in self._like.values())
        self._shares = _shares(self._like, _threads(threads) if elements >= THREADED else 1)
        self._pool = ThreadPoolExecutor(len(self._shares)) if len(self._shares) > 1 else None

    def fold(self, arrays: Mapping[str, NDArray[Any]], weight: float) -> None:
        """Add an update. Its arrays have the names and shapes of `like` and hold finite values; `weight` > 0."""
        first = not self._sums
        if first:
            self._sums = {name: np.empty(array.size, _sum_dtype(array)) for name, array in self._like.items()}
        values = {name: flat(arrays[name]) for name in self._like}
        self._each_share(lambda spans: self._fold_spans(spans, values, weight, first))
        self.weight += weight

    def _fold_spans(self, spans: list[Span], values: Arrays, weight: float, first: bool) -> None:
        room = np.empty(BLOCK)
        for name, start, end in spans:
            total, block = self._sums[name][start:end], values[name][start:end]
            # A cast, then a product: faster than one ufunc call that casts, which goes through a small buffer.
            product = total if first else room[: end - start] if total.dtype == room.dtype else np.empty_like(total)
            product[...] = block
            np.multiply(product, weight, out=product)
            if not first:
                np.add(total, product, out=total)

    def result(self) -> Arrays:
        """Return the mean with the names, order, dtypes and shapes of `like`; ends this object's use.

        Arrays that are not floats are those of `like`.
        """
        means = {name: np.empty(array.shape, array.dtype) for name, array in self._like.items()}
        self._each_share(lambda spans: self._divide_spans(spans, means))
        self._sums.clear()
        return {name: means[name] if name in means else self._kept[name] for name in self._order}

    def _divide_spans(self, spans: list[Span], means: Arrays) -> None:
        for name, start, end in spans:
            total = self._sums[name][start:end]
            np.divide(total, self.weight, out=total)
            flat(means[name])[start:end] = total

    def _each_share(self, work: Callable[[list[Span]], None]) -> None:
        if self._pool is None:
            work(self._shares[0])
        else:
            list(self._pool.map(work, self._shares))


class InOrder:
    """Folds small updates in the order of their slots, so that the order of arrival does not show in the last bit.

    Updates of at most `small` bytes are held until `limit` bytes are, then the lowest slot is folded: a federation
    whose updates fit under the limit together ends in the same bits however they arrive. Larger updates are folded as
    they come; their order shows only in float64's rounding, below float32's in all but rare ties.
    """

    def __init__(self, mean: WeightedMean, *, limit: int = HELD_BYTES, small: int = SMALL_BYTES) -> None:
        self._mean, self._limit, self._small = mean, limit, small
        self._held: list[tuple[int, int, Mapping[str, NDArray[Any]], float]] = []
        self._bytes = 0
        self._tie = count()

    def add(self, slot: int, arrays: Mapping[str, NDArray[Any]], weight: float) -> None:
        """Take an update of the client in `slot`."""
        size = nbytes(arrays.values())
        if size > self._small:
            self._mean.fold(arrays, weight)
            return
        heapq.heappush(self._held, (slot, next(self._tie), arrays, weight))
        self._bytes += size
        while self._bytes > self._limit:
            self._fold_lowest()

    def result(self) -> Arrays:
        """Fold what is held and return the mean."""
        while self._held:
            self._fold_lowest()
        return self._mean.result()

    def _fold_lowest(self) -> None:
        _, _, arrays, weight = heapq.heappop(self._held)
        self._bytes -= nbytes(arrays.values())
        self._mean.fold(arrays, weight)


def _sum_dtype(array: NDArray[Any]) -> np.dtype[Any]:
    return np.result_type(array.dtype, np.float64) if array.dtype.kind in "fc" else np.dtype(np.float64)


def _threads(wanted: int | None) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(wanted or cores, 8)


def _shares(like: Mapping[str, NDArray[Any]], threads: int) -> list[list[Span]]:
    """Deal the arrays' blocks to threads, neighbours to the same one."""
    spans = list(_spans(like))
    size = max(1, -(-len(spans) // threads))
    return [spans[start : start + size] for start in range(0, len(spans), size)] or [[]]


def _spans(like: Mapping[str, NDArray[Any]]) -> Iterator[Span]:
    for name, array in like.items():
        for start in range(0, array.size, BLOCK):
            yield name, start, min(start + BLOCK, array.size)
