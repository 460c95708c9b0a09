"""NumPy's SeedSequence for many entropies at once, and PCG64 set to what it gives: the same numbers in a fraction.

SeedSequence: numpy/random/bit_generator.pyx, after M. E. O'Neill's seed_seq_fe. PCG64: O'Neill 2014, PCG XSL-RR 128/64.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]

POOL = 4  # words
INIT_A, MULT_A = 0x43B0D7E5, 0x931E8875
INIT_B, MULT_B = 0x8B51F9DD, 0x58F38DED
MIX_LEFT, MIX_RIGHT = np.uint32(0xCA01F9DD), np.uint32(0x4973F715)
SHIFT = np.uint32(16)
STEP = 0x2360ED051FC65DA44385DF649FCCF645
WORD, LONG = (1 << 32) - 1, (1 << 128) - 1


def states(entropies: NDArray[np.integer], words: int, spawn_key: Sequence[int] = ()) -> Words:
    """Return SeedSequence(entropy, spawn_key=spawn_key).generate_state(words), for each row of `entropies`.

    entropies: [n, k], values below 2**32. Returns [n, words].
    """
    mixed = _pool([np.asarray(column, np.uint32) for column in entropies.T], spawn_key)
    const, drawn = INIT_B, []
    for word in range(words):
        value = mixed[word % POOL] ^ np.uint32(const)
        const = const * MULT_B & WORD
        value = value * np.uint32(const)
        drawn.append(value ^ (value >> SHIFT))
    return np.stack(drawn, axis=1)


def pcg64(words: NDArray[np.uint32]) -> Any:
    """Return the state of np.random.PCG64(SeedSequence) whose generate_state(8) is `words`."""
    high, low, high_inc, low_inc = (int(value) for value in words.view(np.uint64))
    increment = ((high_inc << 64 | low_inc) << 1 | 1) & LONG
    state = ((increment + (high << 64 | low)) * STEP + increment) & LONG
    inner = {"state": state, "inc": increment}
    return {"bit_generator": "PCG64", "state": inner, "has_uint32": 0, "uinteger": 0}


def _pool(entropy: list[Words], spawn_key: Sequence[int]) -> list[Words]:
    zero = np.zeros_like(entropy[0])
    padding = max(0, POOL - len(entropy))
    words = [*entropy, *[zero] * padding, *(np.full_like(zero, key) for key in spawn_key)]
    hashed = _Hash()
    pool = [hashed(word) for word in words[:POOL]]
    for source in range(POOL):
        for target in range(POOL):
            if source != target:
                pool[target] = _mix(pool[target], hashed(pool[source]))
    for word in words[POOL:]:
        pool = [_mix(each, hashed(word)) for each in pool]
    return pool


class _Hash:
    """Hashes words with a constant that changes from call to call."""

    def __init__(self) -> None:
        self._const = INIT_A

    def __call__(self, value: Words) -> Words:
        value = value ^ np.uint32(self._const)
        self._const = self._const * MULT_A & WORD
        value = value * np.uint32(self._const)
        return value ^ (value >> SHIFT)


def _mix(left: Words, right: Words) -> Words:
    mixed: Words = MIX_LEFT * left - MIX_RIGHT * right
    return mixed ^ (mixed >> SHIFT)
