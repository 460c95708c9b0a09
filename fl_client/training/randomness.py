"""Random numbers of local training, set at the start of each round from (seed, round, client) and nothing else."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_common.data.batches import seeds, seeds_of
from fl_common.models.frameworks import keras, tf

GLOBAL = "global_seed_generator"


class Randomness:
    """The generators that a model draws from: its layers' SeedGenerators and Keras's global one.

    A seed that a user gave to a layer, as in Dropout(seed=3), gives way to the round's.
    """

    def __init__(self, model: keras.Model, seed: int) -> None:
        self._model = model
        self._seed = seed
        # Keras has no public name for it. A traced step keeps the generator that it was traced with, so keep that one.
        self._shared = keras.src.random.seed_generator.global_seed_generator()

    def states(self) -> list[Any]:
        """Return the generators' state variables: int64 [2], a seed and a counter."""
        layers = [variable for variable in self._model.variables if variable.path.endswith("seed_generator_state")]
        return [self._shared.state, *layers]

    def values(self, count: int, *, round: int, client: int) -> NDArray[np.int64]:
        """Return what `count` state variables hold at the start of a round, shape [count, 2]."""
        drawn = seeds(1 + count, seed=self._seed, round=round, client=client)[1:]
        return np.stack([drawn, np.zeros_like(drawn)], axis=1)

    def values_of(self, count: int, clients: Sequence[int] | NDArray[np.int64], *, round: int) -> NDArray[np.int64]:
        """Return `values` for each of many clients, shape [clients, count, 2]."""
        drawn = seeds_of(1 + count, clients, seed=self._seed, round=round)[:, 1:]
        return np.stack([drawn, np.zeros_like(drawn)], axis=2)

    def assign(self, *, round: int, client: int) -> None:
        """Write the round's values into the state variables at once, outside of a compiled program."""
        states = self.states()
        for state, value in zip(states, self.values(len(states), round=round, client=client), strict=True):
            state.assign(value)

    def install(self) -> None:
        """Make the kept generator Keras's global one again, also after another model was built."""
        keras.src.backend.common.global_state.set_global_attribute(GLOBAL, self._shared)

    def begin(self, *, round: int, client: int, tensorflow: bool) -> None:
        """Seed Python's and NumPy's global generators, and TensorFlow's where asked, which drops its kernels."""
        self.install()
        drawn = int(seeds(1, seed=self._seed, round=round, client=client)[0])
        random.seed(drawn)
        np.random.seed(drawn)
        if tensorflow:
            tf.random.set_seed(drawn)
