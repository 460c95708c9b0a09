"""How a cohort is divided: into parts of equal work, and into groups of like size."""

import heapq

import numpy as np
from numpy.typing import NDArray

from fl_simulation.engine.work import Places

UNLIKE = 4.0  # in a group, the largest client has at most so many times the steps of the smallest


def shares(steps: NDArray[np.int64], parts: int) -> list[Places]:
    """Return the places of clients in at most `parts` parts of nearly equal steps, those with most steps first."""
    parts = min(parts, len(steps))
    loads = [(0, part) for part in range(parts)]
    taken: list[list[int]] = [[] for _ in range(parts)]
    for place in np.argsort(-steps, kind="stable"):
        load, part = heapq.heappop(loads)
        taken[part].append(int(place))
        heapq.heappush(loads, (load + int(steps[place]), part))
    return [np.array(sorted(places), np.intp) for places in taken]


def groups(steps: NDArray[np.int64]) -> list[Places]:
    """Return the places of clients in groups of like numbers of steps, those with most first."""
    order = np.argsort(-steps, kind="stable")
    found: list[Places] = []
    while len(order):
        size = int((steps[order] * UNLIKE >= steps[order[0]]).sum())
        found.append(order[:size])
        order = order[size:]
    return found
