"""Evaluation of one model in one compiled program, divided over workers: on many clients' data, and on the test set."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_client.training.compiled import draws_by_kernel
from fl_client.training.trainer import LocalTrainer
from fl_common.messages.arrays import Arrays
from fl_common.models.evaluation import BATCH, build_metrics
from fl_common.models.frameworks import tf
from fl_common.models.tensors import as_metrics, overrides, specs
from fl_simulation.engine.data.pool import pick
from fl_simulation.engine.parts import shares
from fl_simulation.engine.program import Program
from fl_simulation.engine.workers import Workers

Tensor = Any


class Evaluations:
    """Gives each client the metrics that its deployed client would report. Traced once."""

    def __init__(self, trainer: LocalTrainer, workers: Workers) -> None:
        self._trainer = trainer
        self._workers = workers
        self._program: Program | None = None
        self._states: list[Any] = []
        self._together = plain(trainer.model)

    def evaluate(self, arrays: Arrays, rows: Sequence[NDArray[np.int32]], data: Any) -> list[dict[str, float]]:
        """Return the metrics of `arrays` on each client's rows of the resident data; {} for one without rows."""
        filled = [place for place, mine in enumerate(rows) if len(mine)]
        results: list[dict[str, float]] = [{} for _ in rows]
        program = self._prepared(data) if filled else None
        if program is None:
            for place in filled:
                results[place] = self._trainer.evaluate(arrays, pick(data, rows[place])).metrics
            return results
        sizes = np.array([len(rows[place]) for place in filled])
        chosen = [[filled[place] for place in places] for places in shares(sizes, self._workers.count)]
        found = self._workers.map(
            lambda worker, places: self._part(program, worker, arrays, [rows[place] for place in places], data), chosen
        )
        for places, part in zip(chosen, found, strict=True):
            for place, metrics in zip(places, part, strict=True):
                results[place] = metrics
        return results

    def _part(
        self, program: Program, worker: int, arrays: Arrays, rows: list[NDArray[np.int32]], data: Any
    ) -> list[dict[str, float]]:
        sizes = np.array([len(mine) for mine in rows], np.int32)
        seeds = self._trainer.randomness.values(len(self._states), round=0, client=0)
        weights = [arrays[name] for name in self._trainer.names]
        values = program(weights, seeds, np.concatenate(rows), sizes, data, worker=worker)
        columns = {name: value.numpy() for name, value in values.items()}
        return [as_metrics({name: column[place] for name, column in columns.items()}) for place in range(len(rows))]

    def _prepared(self, data: Any) -> Program | None:
        """Trace the program the first time; None where the model must go through the client's own evaluation."""
        self._trainer.randomness.install()
        if self._together and self._program is None:
            self._trainer.randomness.begin(round=0, client=0, tensorflow=True)
            build_metrics(self._trainer.model, data)
            self._states = self._trainer.randomness.states()
            self._program = self._traced(data)
            self._together = not draws_by_kernel(self._program.concrete)
        return self._program if self._together else None

    def _traced(self, data: Any) -> Program:
        model = self._trainer.model

        def run(weights: list[Tensor], seeds: Tensor, rows: Tensor, sizes: Tensor, data: Any) -> dict[str, Any]:
            for variable, value in zip(model.weights, weights, strict=True):
                variable.assign(value)
            clients = tf.shape(sizes)[0]

            def one(client: Tensor, start: Tensor, results: Any) -> Any:
                for state, value in zip(self._states, tf.unstack(seeds), strict=True):
                    state.assign(value)
                model.reset_metrics()
                stop = start + sizes[client]
                tf.while_loop(lambda at: at < stop, step(stop), (start,), parallel_iterations=1)
                values = model.get_metrics_result()
                return client + 1, stop, tf.nest.map_structure(lambda a, value: a.write(client, value), results, values)

            def step(stop: Tensor) -> Any:
                def body(at: Tensor) -> Any:
                    after = tf.minimum(at + BATCH, stop)
                    model.test_step(tf.nest.map_structure(lambda tensor: tf.gather(tensor, rows[at:after]), data))
                    return (after,)

                return body

            arrays = {
                name: tf.TensorArray(value.dtype, clients, element_shape=value.shape)
                for name, value in model.get_metrics_result().items()
            }
            zero = tf.constant(0)
            _, _, results = tf.while_loop(
                lambda client, *_: client < clients, one, (zero, zero, arrays), parallel_iterations=1
            )
            return {name: array.stack() for name, array in results.items()}

        return Program(
            run,
            (
                [tf.TensorSpec(weight.shape, weight.dtype) for weight in model.weights],
                tf.TensorSpec((len(self._states), 2), tf.int64),
                tf.TensorSpec((None,), tf.int32),
                tf.TensorSpec((None,), tf.int32),
                specs(data),
            ),
        )


def plain(model: Any) -> bool:
    """Say whether a model is evaluated by Keras's own test_step, so that it can be inside a program."""
    return not model.run_eagerly and not overrides(
        model, "test_step", "compute_metrics", "evaluate", "make_test_function"
    )
