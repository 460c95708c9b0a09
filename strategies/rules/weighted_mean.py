"""How updates become one: pure rules over NumPy arrays by name. Fed by a strategy with replies that were admitted."""

import heapq
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_common.messages.arrays import BLOCK, Arrays, Signature, flat, is_float, nbytes
from strategies.rules.blocks import COMPILED, THREADED, Span, shares, threads_of

HELD_BYTES = 64 << 20
SMALL_BYTES = 16 << 20

Update = tuple[Mapping[str, NDArray[Any]], float]  # arrays and weight
Share = tuple[NDArray[np.float64], list[Span]]  # of one thread: room for products, and what it folds


class WeightedMean:
    """sum(weight * arrays) / sum(weight), one update at a time: McMahan et al. 2017 (arXiv:1602.05629), algorithm 1.

    Sums are float64 and updated in place, in blocks that stay in cache, on up to eight threads: NumPy, and for models
    of a million elements numba's kernels, release the interpreter's lock; the bits are the same. Memory: two copies of
    a float32 model, whatever the number of updates. It may be kept from round to round: a first fold into fresh memory
    takes half as long again as one into memory in use.
    """

    def __init__(self, like: Mapping[str, NDArray[Any]], *, threads: int | None = None) -> None:
        self.signature = Signature.of(like)
        self.weight = 0.0
        floats = {name: array for name, array in like.items() if is_float(array.dtype)}
        self._sums: Arrays = {name: np.empty(array.size, _sum_dtype(array)) for name, array in floats.items()}
        elements = sum(array.size for array in floats.values())
        # Each thread's room for products is kept, so that no update pays for fresh pages of memory.
        dealt = shares(floats, threads_of(threads) if elements >= THREADED else 1)
        self._shares: list[Share] = [(np.empty(min(BLOCK, elements)), spans) for spans in dealt]
        self._kernels = _kernels(elements)
        self._pool = ThreadPoolExecutor(len(self._shares)) if len(self._shares) > 1 else None

    def begin(self) -> None:
        """Forget what was folded."""
        self.weight = 0.0

    def fold(self, arrays: Mapping[str, NDArray[Any]], weight: float) -> None:
        """Add an update. Its arrays have the names and shapes of `like` and hold finite values; `weight` > 0."""
        self.fold_all([(arrays, weight)])

    def fold_all(self, updates: Sequence[Update]) -> None:
        """Add updates in their order, with one pass over the sums for every four of them."""
        first = self.weight == 0
        flats = [({name: flat(arrays[name]) for name in self._sums}, weight) for arrays, weight in updates]
        self._each(lambda share: self._fold_share(share, flats, first), self._shares)
        self.weight += sum(weight for _, weight in updates)

    def _fold_share(self, share: Share, updates: list[tuple[Arrays, float]], first: bool) -> None:
        room, spans = share
        for name, start, end in spans:
            total = self._sums[name][start:end]
            blocks = [(values[name][start:end], weight) for values, weight in updates]
            if first:
                total.fill(0)
            if self._kernels is not None and all(_compiled(total, block) for block, _ in blocks):
                _fold_compiled(self._kernels, total, blocks)
            else:
                _fold_numpy(total, blocks, room)

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


def _compiled(total: NDArray[Any], block: NDArray[Any]) -> bool:
    return total.dtype == np.float64 and block.dtype == np.float32 and block.flags.c_contiguous


def _fold_compiled(kernels: Any, total: NDArray[Any], blocks: list[tuple[NDArray[Any], float]]) -> None:
    for start in range(0, len(blocks) - 3, 4):
        four = blocks[start : start + 4]
        kernels.fold_4(total, *(block for block, _ in four), *(float(weight) for _, weight in four))
    for block, weight in blocks[len(blocks) // 4 * 4 :]:
        kernels.fold_1(total, block, float(weight))


def _fold_numpy(total: NDArray[Any], blocks: list[tuple[NDArray[Any], float]], room: NDArray[Any]) -> None:
    product = room[: total.size] if total.dtype == room.dtype else np.empty_like(total)
    for block, weight in blocks:
        # A cast, then a product: faster than one ufunc call that casts, which goes through a small buffer.
        product[...] = block
        np.multiply(product, weight, out=product)
        np.add(total, product, out=total)


def _kernels(elements: int) -> Any:
    if elements < COMPILED:
        return None
    from strategies.rules import kernels

    return kernels


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
            self._fold_lowest(4)

    def result(self, like: Mapping[str, NDArray[Any]]) -> Arrays:
        """Fold what is held and return the mean, as `WeightedMean.result` does."""
        while self._held:
            self._fold_lowest(4)
        return self._mean.result(like)

    def _fold_lowest(self, most: int) -> None:
        lowest = [heapq.heappop(self._held)[2:] for _ in range(min(most, len(self._held)))]
        self._bytes -= sum(nbytes(arrays.values()) for arrays, _ in lowest)
        self._mean.fold_all(lowest)


def _sum_dtype(array: NDArray[Any]) -> np.dtype[Any]:
    return np.result_type(array.dtype, np.float64) if array.dtype.kind in "fc" else np.dtype(np.float64)
