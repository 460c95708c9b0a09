"""The server's evaluation on the whole test set, divided over workers: each adds up a part of its batches.

The batches are those of the deployed server, since a loss may look across the examples of one.
"""

from typing import Any

import numpy as np

from fl_client.training.trainer import LocalTrainer
from fl_common.data.examples import Examples, count
from fl_common.messages.arrays import Arrays
from fl_common.models.evaluation import BATCH, Evaluator, build_metrics
from fl_common.models.frameworks import keras, tf
from fl_common.models.tensors import as_metrics, in_order, specs
from fl_simulation.engine.data.pool import resident
from fl_simulation.engine.evaluation import plain
from fl_simulation.engine.program import Program
from fl_simulation.engine.workers import Workers

# Metrics whose variables are sums over the examples, so that those of parts can be added.
SUMS = (keras.metrics.Mean, keras.metrics.Sum)

Tensor = Any


class TestSet:
    """Evaluates models of one kind on one test set. Traced once; the same figures as the server's own, to rounding."""

    __test__ = False  # no test of pytest's

    def __init__(self, trainer: LocalTrainer, workers: Workers, examples: Examples) -> None:
        self._model = trainer.model
        self._names = trainer.names
        self._workers = workers
        self._count = count(examples)
        self._alone = None if plain(self._model) and self._count else Evaluator(self._model)
        self._examples = examples
        self._program: Program | None = None
        self._results: Any = None
        self._data: Any = None

    def evaluate(self, arrays: Arrays) -> dict[str, float]:
        """Return the metrics of `arrays`."""
        if self._alone is None and self._program is None:
            self._begin()
        if self._program is None:
            return self._evaluator().evaluate(arrays, self._examples)
        weights = [tf.convert_to_tensor(each) for each in in_order(arrays, self._names, self._model)]
        program = self._program
        cuts = np.linspace(0, -(-self._count // BATCH), self._workers.count + 1).astype(int) * BATCH
        parts = list(zip(cuts[:-1], np.minimum(cuts[1:], self._count), strict=True))
        sums = self._workers.map(lambda worker, part: program(weights, *part, self._data, worker=worker), parts)
        return as_metrics({name: value.numpy() for name, value in self._results(sums).items()})

    def _evaluator(self) -> Evaluator:
        self._alone = self._alone or Evaluator(self._model)
        return self._alone

    def _begin(self) -> None:
        """Trace the program, where the model's metrics are sums."""
        self._data = resident(self._examples)
        build_metrics(self._model, self._data)
        if all(isinstance(metric, SUMS) and _of_keras(metric) for metric in flat(self._model.metrics)):
            self._results = self._traced_results()
            self._program = self._traced()

    def _traced(self) -> Program:
        model = self._model

        def run(weights: list[Tensor], start: Tensor, stop: Tensor, data: Any) -> list[Tensor]:
            for variable, value in zip(model.weights, weights, strict=True):
                variable.assign(value)
            model.reset_metrics()

            def step(at: Tensor) -> Any:
                after = tf.minimum(at + BATCH, stop)
                model.test_step(tf.nest.map_structure(lambda tensor: tensor[at:after], data))
                return (after,)

            tf.while_loop(lambda at: at < stop, step, (start,), parallel_iterations=1)
            return [tf.identity(variable) for variable in model.metrics_variables]

        number = tf.TensorSpec((), tf.int32)
        weights = [tf.TensorSpec(weight.shape, weight.dtype) for weight in model.weights]
        return Program(run, (weights, number, number, specs(self._data)))

    def _traced_results(self) -> Program:
        model = self._model

        def run(sums: list[list[Tensor]]) -> dict[str, Any]:
            """Return the metrics of what all workers added up."""
            for variable, parts in zip(model.metrics_variables, zip(*sums, strict=True), strict=True):
                variable.assign(tf.add_n(parts))
            results: dict[str, Any] = model.get_metrics_result()
            return results

        one = [tf.TensorSpec(variable.shape, variable.dtype) for variable in model.metrics_variables]
        return Program(run, ([one] * self._workers.count,))


def flat(metrics: list[Any]) -> list[Any]:
    """Return metrics without those that only hold others."""
    return [inner for each in metrics for inner in (flat(each.metrics) if getattr(each, "metrics", None) else [each])]


def _of_keras(metric: Any) -> bool:
    return type(metric).__module__.startswith("keras.src.metrics")
