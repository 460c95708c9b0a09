"""Clients one after the other inside one compiled program: right for convolutions on a CPU.

It traces the deployed client's own program (fl_client.training.compiled), with exact shapes and no padding. Several
workers run it at once, each on clients of its own.
"""

from collections.abc import Sequence
from typing import Any

from fl_client.training.compiled import draws_by_kernel
from fl_client.training.trainer import LocalTrainer
from fl_common.errors import TaskError
from fl_common.models.frameworks import tf
from fl_common.models.tensors import specs
from fl_simulation.engine.parts import shares
from fl_simulation.engine.program import Program
from fl_simulation.engine.work import Outcome, Places, TrainingCohort
from fl_simulation.engine.workers import Workers

Tensor = Any

PARTS = 4  # for each worker: the first to be done takes another


class Loop:
    """Trains cohorts of one model whose `train_step` is Keras's. One trace serves every round, cohort and size."""

    name = "loop"

    def __init__(self, trainer: LocalTrainer, workers: Workers) -> None:
        self.traces = 0
        self._trainer = trainer
        self._workers = workers
        self._epochs = trainer.epochs
        self._programs: dict[tuple[bool, bool], Program] = {}

    def train(self, weights: Sequence[Any], cohort: TrainingCohort, data: Any, *, mu: float, mean: bool) -> Outcome:
        """Train as `Way.train` says. Raises TaskError for a model that draws from tf.random's own kernels."""
        program = self._program(data, proximal=mu > 0, mean=mean)
        weights = [tf.convert_to_tensor(each) for each in weights]

        def one(worker: int, places: Places) -> tuple[Places, Outcome]:
            return places, self._part(program, worker, weights, cohort.part(places), data, mu)

        parts = shares(cohort.steps, self._workers.count * (PARTS if self._workers.count > 1 else 1))
        return Outcome.of_parts(self._workers.map(one, parts), mean=mean)

    def _part(
        self, program: Program, worker: int, weights: Sequence[Tensor], cohort: TrainingCohort, data: Any, mu: float
    ) -> Outcome:
        seeds = self._trainer.randomness.values_of(len(self._epochs.states), cohort.clients, round=cohort.round)
        trained, metrics, finite = program(
            weights,
            seeds,
            cohort.rows,
            cohort.examples,
            cohort.epochs,
            cohort.batch_size,
            mu,
            self._trainer.before(cohort.round) * cohort.steps,
            data,
            worker=worker,
        )
        return Outcome(
            {self._trainer.names[place]: value.numpy() for place, value in trained.items()},
            {name: value.numpy() for name, value in metrics.items()},
            finite.numpy(),
        )

    def _program(self, data: Any, *, proximal: bool, mean: bool) -> Program:
        key = (proximal, mean)
        self._trainer.randomness.install()
        if key not in self._programs:
            self._epochs.prepare(data)
            self._programs[key] = self._traced(data, proximal, mean)
        return self._programs[key]

    def _traced(self, data: Any, proximal: bool, mean: bool) -> Program:
        def train(
            weights: list[Tensor],
            seeds: Tensor,
            rows: Tensor,
            examples: Tensor,
            epochs: Tensor,
            batch_size: Tensor,
            mu: Tensor,
            earlier: Tensor,
            data: Any,
        ) -> Any:
            self.traces += 1
            clients = tf.shape(examples)[0]
            shares = tf.cast(examples, tf.float64)  # sums as the server takes them, so that they end in the same bits
            kept = self._room(clients, mean)

            def one(client: Tensor, start: Tensor, kept: Any, results: Any, finite: Tensor) -> Any:
                stop = start + epochs * examples[client]
                plan = tf.reshape(rows[start:stop], [epochs, examples[client]])
                trained, metrics = self._epochs.trace(
                    weights, seeds[client], plan, batch_size, mu, earlier[client], data, proximal=proximal
                )
                good = _finite(trained)
                kept = _added(kept, trained, shares[client], good) if mean else _written(kept, client, trained)
                results = tf.nest.map_structure(lambda array, value: array.write(client, value), results, metrics)
                return client + 1, stop, kept, results, finite.write(client, good)

            zero = tf.constant(0)
            start = (zero, zero, kept, self._results(clients), _array(clients, tf.bool, ()))
            _, _, kept, results, finite = tf.while_loop(
                lambda client, *_: client < clients, one, start, parallel_iterations=1
            )
            kept = kept if mean else {place: array.stack() for place, array in kept.items()}
            return kept, tf.nest.map_structure(lambda array: array.stack(), results), finite.stack()

        program = Program(
            train,
            (
                [tf.TensorSpec(weight.shape, weight.dtype) for weight in self._trainer.model.weights],
                tf.TensorSpec((None, len(self._epochs.states), 2), tf.int64),
                tf.TensorSpec((None,), tf.int32),
                tf.TensorSpec((None,), tf.int32),
                tf.TensorSpec((), tf.int32),
                tf.TensorSpec((), tf.int32),
                tf.TensorSpec((), tf.float32),
                tf.TensorSpec((None,), tf.int64),
                specs(data),
            ),
        )
        if draws_by_kernel(program.concrete):
            raise TaskError(
                "the model draws from tf.random's stateful operations, whose numbers cannot be set for each client "
                "inside one program. Use keras.random with a SeedGenerator, or --set engine=keras."
            )
        return program

    def _room(self, clients: Tensor, mean: bool) -> dict[int, Any]:
        """Return where the clients' weights go, by the places of the model's: arrays of all, or sums of the floats."""
        weights = dict(enumerate(self._trainer.model.weights))
        if mean:
            floats = {place: each for place, each in weights.items() if tf.as_dtype(each.dtype).is_floating}
            return {place: tf.zeros(each.shape, tf.float64) for place, each in floats.items()}
        return {place: _array(clients, each.dtype, each.shape) for place, each in weights.items()}

    def _results(self, clients: Tensor) -> dict[str, Any]:
        metrics = self._trainer.model.get_metrics_result()
        return {name: _array(clients, value.dtype, value.shape) for name, value in metrics.items()}


def _array(size: Tensor, dtype: Any, shape: Any) -> Any:
    return tf.TensorArray(dtype, size, element_shape=shape)


def _written(arrays: dict[int, Any], client: Tensor, values: list[Tensor]) -> dict[int, Any]:
    return {place: array.write(client, values[place]) for place, array in arrays.items()}


def _finite(values: list[Tensor]) -> Tensor:
    floats = [value for value in values if value.dtype.is_floating]
    return tf.reduce_all([tf.reduce_all(tf.math.is_finite(value)) for value in floats])


def _added(sums: dict[int, Tensor], values: list[Tensor], share: Tensor, good: Tensor) -> dict[int, Tensor]:
    """Add a client's weights times its number of examples; those of a client that is not finite are left out."""

    def added() -> dict[int, Tensor]:
        return {place: total + share * tf.cast(values[place], tf.float64) for place, total in sums.items()}

    chosen: dict[int, Tensor] = tf.cond(
        good, added, lambda: {place: tf.identity(total) for place, total in sums.items()}
    )
    return chosen
