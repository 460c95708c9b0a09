"""How updates become one: pure rules over NumPy arrays by name. Fed by a strategy with replies that were admitted."""

import heapq
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_common.arrays import BLOCK, Arrays, Signature, flat, is_float, nbytes

THREADED = 1 << 18  # elements from which a second thread pays for its start
HELD_BYTES = 64 << 20
SMALL_BYTES = 8 << 20

Span = tuple[str, int, int]  # name, first element, element after the last
Share = tuple[NDArray[np.float64], list[Span]]  # of one thread: room for products, and what it folds


class WeightedMean:
    """sum(weight * arrays) / sum(weight), one update at a time: McMahan et al. 2017 (arXiv:1602.05629), algorithm 1.

    Sums are float64 and updated in place, in blocks that stay in cache, on up to eight threads (NumPy releases the
    interpreter's lock). Memory: two copies of a float32 model, whatever the number of updates; it is kept from round to
    round, because a first fold into fresh memory takes half as long again as one into memory in use.
    """

    def __init__(self, like: Mapping[str, NDArray[Any]], *, threads: int | None = None) -> None:
        self.signature = Signature.of(like)
        self.weight = 0.0
        floats = {name: array for name, array in like.items() if is_float(array.dtype)}
        self._sums: Arrays = {name: np.empty(array.size, _sum_dtype(array)) for name, array in floats.items()}
        elements = sum(array.size for array in floats.values())
        # Each thread's room for products is kept, so that no update pays for fresh pages of memory.
        shares = _shares(floats, _threads(threads) if elements >= THREADED else 1)
        self._shares: list[Share] = [(np.empty(min(BLOCK, elements)), spans) for spans in shares]
        self._pool = ThreadPoolExecutor(len(self._shares)) if len(self._shares) > 1 else None

    def begin(self) -> None:
        """Forget what was folded."""
        self.weight = 0.0

    def fold(self, arrays: Mapping[str, NDArray[Any]], weight: float) -> None:
        """Add an update. Its arrays have the names and shapes of `like` and hold finite values; `weight` > 0."""
        values = {name: flat(arrays[name]) for name in self._sums}
        first = self.weight == 0
        self._each(lambda share: self._fold_share(share, values, weight, first), self._shares)
        self.weight += weight

    def _fold_share(self, share: Share, values: Arrays, weight: float, first: bool) -> None:
        room, spans = share
        for name, start, end in spans:
            total, block = self._sums[name][start:end], values[name][start:end]
            # A cast, then a product: faster than one ufunc call that casts, which goes through a small buffer.
            product = total if first else room[: end - start] if total.dtype == room.dtype else np.empty_like(total)
            product[...] = block
            np.multiply(product, weight, out=product)
            if not first:
                np.add(total, product, out=total)

    def result(self, like: Mapping[str, NDArray[Any]]) -> Arrays:
        """Return the mean with the names, order, dtypes and shapes of `like`, and `like`'s own arrays where no floats.

        The mean is written over the sums: it is valid until the next `fold`, and nothing can be folded into it.
        """
        means: Arrays = {}
        self._each(lambda name: means.update({name: self._divide(name, like[name])}), list(self._sums))
        self.begin()
        return {name: means.get(name, array) for name, array in like.items()}

    def _divide(self, name: str, like: NDArray[Any]) -> NDArray[Any]:
        total = self._sums[name]
        mean: NDArray[Any] = total.view(like.dtype)[: total.size]  # never ahead of the sums that are still to be read
        room = np.empty(BLOCK, total.dtype)
        for start in range(0, total.size, BLOCK):
            part = room[: total[start : start + BLOCK].size]
            np.divide(total[start : start + BLOCK], self.weight, out=part)
            mean[start : start + BLOCK] = part
        return mean.reshape(like.shape)

    def _each(self, work: Callable[[Any], None], items: list[Any]) -> None:
        if self._pool is None:
            for item in items:
                work(item)
        else:
            list(self._pool.map(work, items))


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

    def result(self, like: Mapping[str, NDArray[Any]]) -> Arrays:
        """Fold what is held and return the mean, as `WeightedMean.result` does."""
        while self._held:
            self._fold_lowest()
        return self._mean.result(like)

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
