"""Evaluation of a model on examples, in one compiled program. Used by a client and by the server."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from fl_common.data.examples import Examples, count
from fl_common.models.frameworks import keras, tf
from fl_common.models.tensors import Tensors, as_metrics, in_order, overrides, specs
from fl_common.models.weights import assign, names_of

BATCH = 256


class Evaluator:
    """Evaluates one compiled, built Keras model again and again; traced once."""

    def __init__(self, model: keras.Model, *, batch_size: int = BATCH) -> None:
        self.model = model
        self.traces = 0
        self._batch_size = batch_size
        self._names = names_of(model)
        self._tensors = Tensors()
        self._compiled = not model.run_eagerly and not overrides(
            model, "test_step", "compute_metrics", "evaluate", "make_test_function"
        )
        self._function: Any = None

    def evaluate(self, arrays: Mapping[str, NDArray[Any]], examples: Examples) -> dict[str, float]:
        """Return the metrics of `arrays` on `examples`, as `model.evaluate(..., batch_size=batch_size)` names them.

        A model with its own `test_step`, or that runs eagerly, goes through Keras's `evaluate`. Returns {} without
        examples. Raises TaskError where `arrays` are not this model's.
        """
        if not count(examples):
            return {}
        if not self._compiled:
            return self._by_keras(arrays, examples)
        data = self._tensors.of(examples)
        weights = in_order(arrays, self._names, self.model)
        return as_metrics(self._program(data)(weights, data))

    def _by_keras(self, arrays: Mapping[str, NDArray[Any]], examples: Examples) -> dict[str, float]:
        assign(self.model, arrays)
        x, y, weight = keras.utils.unpack_x_y_sample_weight(examples)
        results = self.model.evaluate(
            x, y, sample_weight=weight, batch_size=self._batch_size, verbose=0, return_dict=True
        )
        return as_metrics(results)

    def _program(self, data: Any) -> Any:
        if self._function is None:
            build_metrics(self.model, data)
            self._function = tf.function(self._run, autograph=False, reduce_retracing=True)
            weights = [tf.TensorSpec(weight.shape, weight.dtype) for weight in self.model.weights]
            self._function.get_concrete_function(weights, specs(data))
        return self._function

    def _run(self, weights: list[Any], data: Any) -> dict[str, Any]:
        self.traces += 1
        for variable, value in zip(self.model.weights, weights, strict=True):
            variable.assign(value)
        self.model.reset_metrics()
        total = tf.shape(tf.nest.flatten(data)[0])[0]

        def step(start: Any) -> Any:
            stop = tf.minimum(start + self._batch_size, total)
            self.model.test_step(tf.nest.map_structure(lambda tensor: tensor[start:stop], data))
            return (stop,)

        tf.while_loop(lambda start: start < total, step, (tf.constant(0),), parallel_iterations=1)
        results: dict[str, Any] = self.model.get_metrics_result()
        return results


def build_metrics(model: keras.Model, data: Any) -> None:
    """Create the variables of the model's metrics and optimizer before they are used inside a compiled loop."""
    model._symbolic_build(data_batch=specs(data))  # what Keras's own fit does under a distribution strategy
