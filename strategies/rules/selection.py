"""Rules that choose whole models by their distances: Krum, and Bulyan's first step. None looks at weights."""

import numpy as np
from numpy.typing import NDArray

from strategies.rules.geometry import Matrix


def krum(distances: Matrix, f: int, choose: int = 1) -> NDArray[np.int64]:
    """Return the places of the `choose` models with the lowest scores, best first.

    Blanchard et al. 2017 (arXiv:1703.02757), section 4: the score of a model is the sum of its squared distances to
    the n - f - 2 others that are nearest. Of equals the one whose next neighbour is nearer is taken, at last the first.
    distances: squared, [n, n]. f: hostile models that are borne; n >= 2f + 3.
    """
    count = len(distances)
    others = np.sort(distances[~np.eye(count, dtype=bool)].reshape(count, count - 1), axis=1)
    nearest = min(max(1, count - f - 2), count - 1)
    scores = others[:, :nearest].sum(axis=1)
    return np.lexsort([*others[:, nearest:].T[::-1], scores])[:choose]


def bulyan(distances: Matrix, f: int) -> NDArray[np.int64]:
    """Return the places of the n - 2f models that Krum chooses one after the other, each from those that are left.

    El Mhamdi et al. 2018 (arXiv:1802.07927), section 4, with Krum as the rule inside; n >= 4f + 3. Scores are taken
    again after each choice. The last choices leave Krum fewer than the n - f - 2 neighbours it asks for: one at least,
    and the two models of a nearest pair are equals then.
    """
    left = np.arange(len(distances))
    chosen = []
    for _ in range(len(distances) - 2 * f):
        best = krum(distances[np.ix_(left, left)], f)[0]
        chosen.append(left[best])
        left = np.delete(left, best)
    return np.array(chosen)
