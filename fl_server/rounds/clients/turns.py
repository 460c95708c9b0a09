"""Clients in turn: those first whose last turn is longest ago. The other way, at random, is the strategy's own."""

from collections.abc import Callable, Sequence

import numpy as np

from strategies.fedavg import Draw


def in_turn(turn: Callable[[int], tuple[int, int]]) -> Draw:
    """Return a draw of those whose last turn is longest ago, then of those who had fewer, then at random.

    turn: gives a node's last round and how many it had. Of clients that stay available none gets two turns ahead.
    """

    def draw(nodes: Sequence[int], size: int, rng: np.random.Generator) -> list[int]:
        last, turns = np.array([turn(node) for node in nodes], np.int64).reshape(-1, 2).T
        first = np.lexsort((rng.random(len(nodes)), turns, last))[:size]
        return [int(place) for place in sorted(first)]

    return draw
