"""Rules that move a centre towards all models, with a bounded pull from each: on the models' inner products alone.

A centre is a combination of the models, which is where these rules leave it: its coefficients are what is returned.
"""

import numpy as np
from numpy.typing import NDArray

from strategies.rules.geometry import Matrix

Coefficients = NDArray[np.float64]

ITERATIONS = 1000
SETTLED = 1e-10  # largest change of a coefficient at which Weiszfeld's iteration ends


def geometric_median(
    gram: Matrix, weights: NDArray[np.float64], *, smoothing: float = 1e-6, iterations: int = ITERATIONS
) -> Coefficients:
    """Return the coefficients of the point whose summed distances to all models, times their weights, are least.

    Pillutla et al. 2022 (arXiv:1912.13445), algorithm 2, the smoothed Weiszfeld iteration; smoothing is its nu. It
    starts at the origin, the current model, and not at a mean that one far model can carry off. The coefficients sum
    to 1. A model that is infinitely far off gets 0.
    """
    near = np.flatnonzero(np.isfinite(np.diag(gram)))
    result = np.zeros(len(gram))
    if not len(near):
        return result
    inner, weights = gram[np.ix_(near, near)], weights[near]
    distances, last = np.sqrt(np.diag(inner)), np.zeros(len(near))
    for _ in range(iterations):
        pulls = weights / np.maximum(distances, smoothing)
        shares = pulls / pulls.sum()
        if np.abs(shares - last).max(initial=0) <= SETTLED:
            break
        last, distances = shares, _distances(inner, shares)
    result[near] = shares
    return result


def clipped(lengths: NDArray[np.float64], bound: float) -> Coefficients:
    """Return the factor for each of these lengths that leaves it at most `bound`: min(1, bound / length)."""
    return np.minimum(1.0, bound / np.maximum(lengths, np.finfo(np.float64).tiny))


def centered_clipping(gram: Matrix, weights: NDArray[np.float64], *, bound: float, iterations: int = 1) -> Coefficients:
    """Return the coefficients of a centre after each model has pulled at it, no further than `bound`.

    Karimireddy et al. 2021 (arXiv:2012.10333), algorithm 1, CCLIP: v = v + mean of (x_i - v) min(1, bound / |x_i - v|).
    gram: of the models and, last, of the centre to begin with. bound: its tau; 0 takes the median of the distances.
    """
    models = len(gram) - 1
    shares = weights / weights.sum()
    centre = np.zeros(models + 1)
    centre[models] = 1.0
    for _ in range(iterations):
        distances = _from_centre(gram, centre)
        radius = bound or float(np.median(distances))
        pulls = shares * np.where(np.isfinite(distances), clipped(distances, radius), 0.0)
        centre *= 1 - pulls.sum()
        centre[:models] += pulls
    return centre


def _from_centre(gram: Matrix, centre: Coefficients) -> NDArray[np.float64]:
    near = np.isfinite(np.diag(gram))
    distances = np.full(len(gram), np.inf)
    distances[near] = _distances(gram[np.ix_(near, near)], centre[near])
    return distances[:-1]


def _distances(gram: Matrix, shares: Coefficients) -> NDArray[np.float64]:
    products = gram @ shares
    return np.sqrt(np.maximum(np.diag(gram) - 2 * products + shares @ products, 0.0))
