"""Models as points: their inner products, from which every distance follows, and their combinations.

One pass over the models gives the inner products, a matrix of [models, models]; a rule decides on that matrix alone,
and a second pass takes the combination it decided on. Points are taken from the current model, where they are close
together: distances from inner products of whole models lose their digits. Everything is float64.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_common.messages.arrays import Arrays
from strategies.rules.tiles import Model, Tile, reals, swept

Matrix = NDArray[np.float64]


def gram(models: Sequence[Model], names: Sequence[str], origin: Model) -> Matrix:
    """Return the inner products of all models minus `origin`, [models, models].

    A model so far off that its square is beyond float64 has an infinity on the diagonal.
    """

    def work(tiles: Iterator[Tile]) -> Matrix:
        total = np.zeros((len(models), len(models)))
        for room, _ in tiles:
            total += room @ room.T
        return total

    with np.errstate(over="ignore", invalid="ignore"):
        return sum(swept(models, names, work, less=origin, dtype=np.float64), np.zeros((len(models), len(models))))


def norms(models: Sequence[Model], names: Sequence[str], origin: Model) -> NDArray[np.float64]:
    """Return the norm of each model minus `origin`."""

    def work(tiles: Iterator[Tile]) -> NDArray[np.float64]:
        total = np.zeros(len(models))
        for room, _ in tiles:
            total += np.einsum("ij,ij->i", room, room)
        return total

    with np.errstate(over="ignore"):
        squares = sum(swept(models, names, work, less=origin, dtype=np.float64), np.zeros(len(models)))
        return np.sqrt(squares)


def squared_distances(gram: Matrix) -> Matrix:
    """Return the squared distances between all points, [points, points]; infinite from and to a point that is."""
    norms = np.diag(gram)
    with np.errstate(invalid="ignore"):
        squared = np.maximum(norms[:, None] + norms[None, :] - 2 * gram, 0.0)
    return np.where(np.isfinite(norms[:, None] + norms[None, :]), squared, np.inf)


def combination(models: Sequence[Model], names: Sequence[str], coefficients: NDArray[Any], origin: Model) -> Arrays:
    """Return origin + sum of coefficients[i] * (models[i] - origin), in the dtypes of `origin`.

    Models with the coefficient 0 are not looked at.
    """
    used = [place for place, each in enumerate(coefficients) if each]
    results: Arrays = {name: np.array(origin[name], order="C") for name in names}
    lines = {name: reals(result) for name, result in results.items()}
    shares = np.asarray(coefficients, np.float64)[used]

    def work(tiles: Iterator[Tile]) -> None:
        for room, (name, start, stop) in tiles:
            line = lines[name][start:stop]
            line[...] = line.astype(np.float64) + shares @ room

    if used:
        swept([models[place] for place in used], names, work, less=origin, dtype=np.float64)
    return results
