"""Clients one after the other inside one compiled program, each step on all cores: right for convolutions on a CPU.

It traces the deployed client's own program (fl_client.epochs), with exact shapes and no padding.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_client.epochs import draws_by_kernel
from fl_client.training import LocalTrainer
from fl_common.errors import TaskError
from fl_common.lean import tf
from fl_common.tensors import specs
from fl_simulation.work import Cohort, Outcome

Tensor = Any


class Loop:
    """Trains cohorts of one model whose `train_step` is Keras's. One trace serves every round, cohort and size."""

    name = "loop"

    def __init__(self, trainer: LocalTrainer) -> None:
        self.traces = 0
        self._trainer = trainer
        self._epochs = trainer.epochs
        self._programs: dict[tuple[bool, bool], Any] = {}

    def train(self, weights: Sequence[NDArray[Any]], cohort: Cohort, data: Any, *, mu: float, mean: bool) -> Outcome:
        """Train as `Vectorized.train` does. Raises TaskError for a model that draws from tf.random's own kernels."""
        program = self._program(data, proximal=mu > 0, mean=mean)
        states = len(self._epochs.states)
        values = self._trainer.randomness.values
        seeds = [values(states, round=cohort.round, client=client) for client in cohort.clients]
        trained, metrics, finite = program(
            list(weights),
            np.stack(seeds),
            np.concatenate([np.concatenate(plan) for plan in cohort.plans]),
            cohort.examples.astype(np.int32),
            np.int32(len(cohort.plans[0])),
            np.int32(cohort.batch_size),
            np.float32(mu),
            data,
        )
        names = self._trainer.names
        return Outcome(
            {name: np.asarray(value) for name, value in zip(names, trained, strict=True)},
            {name: np.asarray(value) for name, value in metrics.items()},
            np.asarray(finite),
        )

    def _program(self, data: Any, *, proximal: bool, mean: bool) -> Any:
        key = (proximal, mean)
        self._trainer.randomness.install()
        if key not in self._programs:
            self._epochs.prepare(data)
            self._programs[key] = self._traced(data, proximal, mean)
        return self._programs[key]

    def _traced(self, data: Any, proximal: bool, mean: bool) -> Any:
        def train(
            weights: list[Tensor],
            seeds: Tensor,
            rows: Tensor,
            examples: Tensor,
            epochs: Tensor,
            batch_size: Tensor,
            mu: Tensor,
            data: Any,
        ) -> Any:
            self.traces += 1
            clients = tf.shape(examples)[0]
            shares = tf.cast(examples, tf.float64)  # sums as the server takes them, so that they end in the same bits

            def one(client: Tensor, start: Tensor, kept: Any, results: Any, finite: Tensor) -> Any:
                stop = start + epochs * examples[client]
                plan = tf.reshape(rows[start:stop], [epochs, examples[client]])
                trained, metrics = self._epochs.trace(
                    weights, seeds[client], plan, batch_size, mu, data, proximal=proximal
                )
                good = _finite(trained)
                kept = _added(kept, trained, shares[client], good) if mean else _written(kept, client, trained)
                results = tf.nest.map_structure(lambda array, value: array.write(client, value), results, metrics)
                return client + 1, stop, kept, results, finite.write(client, good)

            zero = tf.constant(0)
            start = (zero, zero, self._room(clients, mean), self._results(clients), _array(clients, tf.bool, ()))
            _, _, kept, results, finite = tf.while_loop(
                lambda client, *_: client < clients, one, start, parallel_iterations=1
            )
            flags = finite.stack()
            kept = _divided(kept, weights, shares, flags) if mean else [array.stack() for array in kept]
            return kept, tf.nest.map_structure(lambda array: array.stack(), results), flags

        function = tf.function(train, autograph=False, reduce_retracing=True)
        concrete = function.get_concrete_function(
            [tf.TensorSpec(weight.shape, weight.dtype) for weight in self._trainer.model.weights],
            tf.TensorSpec((None, len(self._epochs.states), 2), tf.int64),
            tf.TensorSpec((None,), tf.int32),
            tf.TensorSpec((None,), tf.int32),
            tf.TensorSpec((), tf.int32),
            tf.TensorSpec((), tf.int32),
            tf.TensorSpec((), tf.float32),
            specs(data),
        )
        if draws_by_kernel(concrete):
            raise TaskError(
                "the model draws from tf.random's stateful operations, whose numbers cannot be set for each client "
                "inside one program. Use keras.random with a SeedGenerator, or --set engine=keras."
            )
        return function

    def _room(self, clients: Tensor, mean: bool) -> list[Any]:
        weights = self._trainer.model.weights
        if mean:
            return [tf.zeros(each.shape, tf.float64) for each in weights]
        return [_array(clients, each.dtype, each.shape) for each in weights]

    def _results(self, clients: Tensor) -> dict[str, Any]:
        metrics = self._trainer.model.get_metrics_result()
        return {name: _array(clients, value.dtype, value.shape) for name, value in metrics.items()}


def _array(size: Tensor, dtype: Any, shape: Any) -> Any:
    return tf.TensorArray(dtype, size, element_shape=shape)


def _written(arrays: list[Any], client: Tensor, values: list[Tensor]) -> list[Any]:
    return [array.write(client, value) for array, value in zip(arrays, values, strict=True)]


def _finite(values: list[Tensor]) -> Tensor:
    floats = [value for value in values if value.dtype.is_floating]
    return tf.reduce_all([tf.reduce_all(tf.math.is_finite(value)) for value in floats])


def _added(sums: list[Tensor], values: list[Tensor], share: Tensor, good: Tensor) -> list[Tensor]:
    """Add a client's weights times its number of examples; those of a client that is not finite are left out."""
    added = [total + share * tf.cast(value, tf.float64) for total, value in zip(sums, values, strict=True)]
    return [tf.where(good, new, total) for new, total in zip(added, sums, strict=True)]


def _divided(sums: list[Tensor], before: list[Tensor], shares: Tensor, finite: Tensor) -> list[Tensor]:
    """Return the means; what is no float is kept as it was."""
    total = tf.maximum(tf.reduce_sum(tf.where(finite, shares, tf.zeros_like(shares))), 1.0)
    pairs = zip(sums, before, strict=True)
    return [tf.cast(each / total, old.dtype) if old.dtype.is_floating else old for each, old in pairs]
