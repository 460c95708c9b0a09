"""Rules that look at each coordinate alone: median, trimmed mean, mean around the median. None looks at weights.

Up to 128 models are ordered by a sorting network, compiled where there is much to order, more by NumPy's partition. The
values are the same. A mean is taken in float64 and rounded once.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_common.messages.arrays import Arrays
from strategies.rules import networks
from strategies.rules.tiles import Model, Room, Tile, reals, swept

NETWORKS = 128  # models up to which a network is faster than partition
WIDE = 128  # columns from which it is so in NumPy
LARGE = 1 << 27  # values from which numba's kernels pay for their import and compilation, two seconds

Order = Callable[[Room], NDArray[Any]]  # takes a room, which it may overwrite, and returns one value for each column


def median(models: Sequence[Model], names: Sequence[str], *, compiled: bool | None = None) -> Arrays:
    """Return the median of each coordinate: Yin et al. 2018 (arXiv:1803.01498), definition 1.

    An even number of models gives the mean of the two in the middle.
    """
    count = len(models)
    return _ranks(models, names, (count - 1) // 2, count // 2 + 1, compiled)


def trimmed_mean(models: Sequence[Model], names: Sequence[str], cut: int, *, compiled: bool | None = None) -> Arrays:
    """Return the mean of each coordinate without its `cut` smallest and `cut` largest values: Yin et al., definition 2.

    cut: less than half of the models; the paper gives it as a share of them, beta.
    """
    return _ranks(models, names, cut, len(models) - cut, compiled)


def mean_around_median(
    models: Sequence[Model], names: Sequence[str], keep: int, *, compiled: bool | None = None
) -> Arrays:
    """Return the mean of the `keep` values of each coordinate that are nearest to its median: Bulyan's second step.

    El Mhamdi et al. 2018 (arXiv:1802.07927), section 4. Of two values that are equally far, the smaller is taken.
    """
    if _is_large(models, names) if compiled is None else compiled:
        from strategies.rules import network_kernels as kernels

        pairs = networks.sorting(len(models))
        return _each_tile(models, names, lambda room: kernels.average_nearest(kernels.exchange(room, pairs), keep))
    return _each_tile(models, names, lambda room: _average_nearest(_sorted(room), keep))


def _ranks(models: Sequence[Model], names: Sequence[str], first: int, stop: int, compiled: bool | None) -> Arrays:
    """Return the mean of the values whose ranks are `first` to `stop` - 1, of each coordinate."""
    if _is_large(models, names) if compiled is None else compiled:
        from strategies.rules import network_kernels as kernels

        pairs = networks.selecting(len(models), first, stop)
        return _each_tile(models, names, lambda room: kernels.average(kernels.exchange(room, pairs), first, stop))
    return _each_tile(models, names, lambda room: _average(_selected(room, first, stop), first, stop))


def _is_large(models: Sequence[Model], names: Sequence[str]) -> bool:
    return len(models) <= NETWORKS and len(models) * sum(models[0][name].size for name in names) >= LARGE


def _each_tile(models: Sequence[Model], names: Sequence[str], order: Order) -> Arrays:
    results: Arrays = {name: np.empty_like(models[0][name], order="C") for name in names}
    lines = {name: reals(result) for name, result in results.items()}

    def work(tiles: Iterator[Tile]) -> None:
        for room, (name, start, stop) in tiles:
            lines[name][start:stop] = order(room)

    swept(models, names, work)
    return results


def _selected(room: Room, first: int, stop: int) -> Room:
    if _by_network(room):
        return _exchanged(room, networks.selecting(len(room), first, stop))
    room.partition(sorted({first, stop - 1}), axis=0)
    return room


def _sorted(room: Room) -> Room:
    if _by_network(room):
        return _exchanged(room, networks.sorting(len(room)))
    room.sort(axis=0)
    return room


def _by_network(room: Room) -> bool:
    return len(room) <= NETWORKS and room.shape[1] >= WIDE


def _exchanged(room: Room, pairs: NDArray[np.int64]) -> Room:
    smaller = np.empty(room.shape[1], room.dtype)
    for low, high in pairs:
        np.minimum(room[low], room[high], out=smaller)
        np.maximum(room[low], room[high], out=room[high])
        room[low] = smaller
    return room


def _average(room: Room, first: int, stop: int) -> NDArray[Any]:
    mean: NDArray[Any] = room[first:stop].mean(axis=0, dtype=np.float64)
    return mean


def _average_nearest(room: Room, keep: int) -> NDArray[Any]:
    """Return the mean of the `keep` values of each column that are nearest to its median, of sorted rows.

    They stand side by side: of all such windows, it is the first whose farthest end is nearest.
    """
    rows, wide = len(room), room.astype(np.float64)
    middle = (wide[(rows - 1) // 2] + wide[rows // 2]) / 2
    reach = [np.maximum(middle - wide[k], wide[k + keep - 1] - middle) for k in range(rows - keep + 1)]
    first = np.argmin(reach, axis=0)
    mean: NDArray[Any] = np.take_along_axis(wide, first + np.arange(keep)[:, None], axis=0).mean(axis=0)
    return mean
