"""Clients in turn: those first whose last turn is longest ago. The other way, at random, is the strategy's own."""

from collections.abc import Callable, Sequence

import numpy as np

from strategies.fedavg import Draw


def in_turn(last_round: Callable[[int], int]) -> Draw:
    """Return a draw of those whose last turn is longest ago, or who had none; among equals at random.

    Over as many rounds as it takes to ask everyone once, everyone is asked once, as long as they stay available.
    """

    def draw(nodes: Sequence[int], size: int, rng: np.random.Generator) -> list[int]:
        last = np.fromiter((last_round(node) for node in nodes), np.int64, len(nodes))
        first = np.lexsort((rng.random(len(nodes)), last))[:size]
        return [int(place) for place in sorted(first)]

    return draw
