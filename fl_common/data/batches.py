"""The batch plan: which examples in which order, from (seed, round, client). Between a partition and local training."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fl_common.data import seeding
from fl_common.errors import DataError, Shown

# Keeps the stream of seeds apart from the streams of the plan, whose entropy has one word more.
STREAM_OF_SEEDS = (1,)


def plan(examples: int, batch_size: int, epochs: int, *, seed: int, round: int, client: int) -> list[NDArray[np.int32]]:
    """Return one permutation of `range(examples)` for each epoch, shape [examples], dtype int32.

    A local step takes `batch_size` consecutive entries; the last step of an epoch takes what is left, which may be
    fewer and is never padded (padding would reach BatchNorm's statistics). Raises DataError without examples.
    """
    if min(examples, batch_size, epochs) < 1:
        raise DataError(
            "local training needs at least 1 example, batch size and epoch; got {examples}, {batch_size}, {epochs}. "
            "Give this client data, or leave it out.",
            examples=examples,
            batch_size=Shown(batch_size),
            epochs=Shown(epochs),
        )
    return [_permutation(examples, (seed, round, client, epoch)) for epoch in range(epochs)]


def steps(examples: int, batch_size: int) -> int:
    """Return the number of local steps of an epoch, the ragged last one counted."""
    return -(-examples // batch_size)


def batches(order: NDArray[np.int32], batch_size: int) -> list[NDArray[np.int32]]:
    """Return one epoch's `order` cut into its steps: views of shape [batch_size], the last one perhaps shorter."""
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def seeds(count: int, *, seed: int, round: int, client: int) -> NDArray[np.int64]:
    """Return `count` seeds for the random generators of a client's round, in [0, 2**31), shape [count].

    The first of them do not change when more are asked for.
    """
    sequence = np.random.SeedSequence((seed, round, client), spawn_key=STREAM_OF_SEEDS)
    return (sequence.generate_state(count, np.uint32) >> np.uint32(1)).astype(np.int64)


def shuffled(
    rows: Sequence[NDArray[np.int32]], clients: Sequence[int], epochs: int, *, seed: int, round: int
) -> NDArray[np.int32]:
    """Return the rows of many clients in the order in which `plan` takes them, one behind the other.

    rows: of each client, [examples]. The result holds each client's epochs in turn: [sum of examples * epochs].
    """
    entropies = np.array([(seed, round, client, epoch) for client in clients for epoch in range(epochs)], np.int64)
    words = seeding.states(entropies.reshape(-1, 4), 8)
    bits = np.random.PCG64(0)
    generator = np.random.Generator(bits)
    ordered = []
    for place, state in enumerate(words):
        bits.state = seeding.pcg64(state)
        ordered.append(generator.permutation(rows[place // epochs]))
    return np.concatenate(ordered) if ordered else np.zeros(0, np.int32)


def seeds_of(count: int, clients: Sequence[int] | NDArray[np.int64], *, seed: int, round: int) -> NDArray[np.int64]:
    """Return what `seeds` returns for each of many clients, shape [clients, count]."""
    entropies = np.array([(seed, round, client) for client in clients], np.int64).reshape(-1, 3)
    drawn = seeding.states(entropies, count, STREAM_OF_SEEDS) if count else np.zeros((len(clients), 0), np.uint32)
    return (drawn >> np.uint32(1)).astype(np.int64)


def _permutation(examples: int, entropy: tuple[int, ...]) -> NDArray[np.int32]:
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
    return generator.permutation(np.arange(examples, dtype=np.int32))
