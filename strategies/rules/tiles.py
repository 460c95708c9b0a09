"""Many models side by side, a tile at a time: the same few thousand elements of each, and no second copy of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fl_common.messages.arrays import flat
from strategies.rules.blocks import THREADED, Span, shares, threads_of

Model = Mapping[str, NDArray[Any]]
Room = NDArray[Any]  # [models, elements], float32 or float64
Tile = tuple[Room, Span]
T = TypeVar("T")

ROOM = 1 << 18  # elements of a room: with its results it stays in a core's second cache
LEAST, MOST = 512, 1 << 13  # elements of each model in a tile


def swept(
    models: Sequence[Model],
    names: Sequence[str],
    work: Callable[[Iterator[Tile]], T],
    *,
    less: Model | None = None,
    dtype: Any = None,
    threads: int | None = None,
) -> list[T]:
    """Go once over the arrays called `names`: return what `work` returns for the tiles of each thread, in their order.

    A tile is a room, whose row i holds elements of model i minus those of `less`, and the span of these elements; the
    room is used again for the next tile. dtype: of the rooms; by default float32, or float64 for arrays that are.
    Complex arrays are pairs of reals, and spans count reals.
    """
    flats = [{name: reals(model[name]) for name in names} for model in models]
    base = None if less is None else {name: reals(less[name]) for name in names}
    elements = len(models) * sum(array.size for array in flats[0].values())
    size = int(np.clip(ROOM // len(models), LEAST, MOST))
    dealt = shares(flats[0], threads_of(threads) if elements >= THREADED else 1, size)
    width = min(size, max((array.size for array in flats[0].values()), default=0))
    parts = [_tiles(flats, spans, base, dtype, width) for spans in dealt]
    if len(parts) == 1:
        return [work(parts[0])]
    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(work, parts))


def reals(array: NDArray[Any]) -> NDArray[Any]:
    """Return `array` in one dimension, a complex one as pairs of reals; a view where it is contiguous."""
    line = flat(array)
    return line.view(line.real.dtype) if line.dtype.kind == "c" else line


def _tiles(
    flats: list[dict[str, NDArray[Any]]], spans: list[Span], base: Model | None, dtype: Any, width: int
) -> Iterator[Tile]:
    rooms: dict[Any, Room] = {}
    for span in spans:
        name, start, stop = span
        kind = np.dtype(dtype or (np.float64 if flats[0][name].dtype == np.float64 else np.float32))
        if kind not in rooms:
            rooms[kind] = np.empty(len(flats) * width, kind)
        room = rooms[kind][: len(flats) * (stop - start)].reshape(len(flats), -1)  # contiguous, also the last
        for row, arrays in zip(room, flats, strict=True):
            row[...] = arrays[name][start:stop]
        if base is not None:
            room -= base[name][start:stop].astype(kind)
        yield room, span
