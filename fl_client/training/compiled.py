"""The local epochs of a round as one compiled program: Keras's own train_step in a loop inside TensorFlow."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_client.training.optimizer_state import Slots
from fl_client.training.randomness import Randomness
from fl_common.models.evaluation import build_metrics
from fl_common.models.frameworks import keras, tf
from fl_common.models.tensors import specs

NORMAL = {"RandomStandardNormal", "TruncatedNormal", "ParameterizedTruncatedNormal"}
STATEFUL = NORMAL | {
    "RandomUniform",
    "RandomUniformInt",
    "RandomShuffle",
    "RandomGamma",
    "RandomPoissonV2",
    "Multinomial",
}


class Epochs:
    """Runs a round's local epochs on a model whose `train_step` is Keras's. One trace serves every round and size."""

    def __init__(self, model: keras.Model, slots: Slots, randomness: Randomness) -> None:
        self.traces = 0
        self._model = model
        self._slots = slots
        self._randomness = randomness
        self._programs: dict[bool, Any] = {}
        self.states: list[Any] = []
        self._stateful = False

    def run(
        self,
        weights: Sequence[NDArray[Any]],
        plan: Sequence[NDArray[np.int32]],
        data: Any,
        batch_size: int,
        *,
        round: int,
        client: int,
        mu: float,
        earlier: int = 0,
    ) -> tuple[list[NDArray[Any]], dict[str, Any]]:
        """Train from `weights` over `plan` and return the new weights and the metrics of the last epoch.

        weights: in the order of `model.weights`. data: tensors of (x, y) or (x, y, sample_weight).
        mu: FedProx's proximal term, whose gradient is added; it is not part of the reported loss. earlier: local steps
        of earlier rounds, for schedules.
        """
        program = self._program(data, proximal=mu > 0)
        self._randomness.begin(round=round, client=client, tensorflow=self._stateful)
        seeds = self._randomness.values(len(self.states), round=round, client=client)
        numbers = np.int32(batch_size), np.float32(mu), np.int64(earlier)
        trained, metrics = program(list(weights), seeds, np.stack(plan), *numbers, data)
        return [np.array(value) for value in trained], metrics

    def _program(self, data: Any, *, proximal: bool) -> Any:
        if proximal not in self._programs:
            self.prepare(data)
            self._programs[proximal] = self._traced(data, proximal)
        return self._programs[proximal]

    def prepare(self, data: Any) -> None:
        """Create what a trace needs: the optimizer's and metrics' variables and the random generators' states."""
        self._randomness.begin(round=0, client=0, tensorflow=True)
        build_metrics(self._model, data)
        self.states = self._randomness.states()

    def _traced(self, data: Any, proximal: bool) -> Any:
        def train(weights: list[Any], seeds: Any, plan: Any, batch_size: Any, mu: Any, earlier: Any, data: Any) -> Any:
            self.traces += 1
            return self.trace(weights, seeds, plan, batch_size, mu, earlier, data, proximal=proximal)

        function = tf.function(train, autograph=False, reduce_retracing=True)
        concrete = function.get_concrete_function(
            [tf.TensorSpec(weight.shape, weight.dtype) for weight in self._model.weights],
            tf.TensorSpec((len(self.states), 2), tf.int64),
            tf.TensorSpec((None, None), tf.int32),
            tf.TensorSpec((), tf.int32),
            tf.TensorSpec((), tf.float32),
            tf.TensorSpec((), tf.int64),
            specs(data),
        )
        self._stateful = self._stateful or draws_by_kernel(concrete)
        return function

    def trace(
        self,
        weights: list[Any],
        seeds: Any,
        plan: Any,
        batch_size: Any,
        mu: Any,
        earlier: Any,
        data: Any,
        *,
        proximal: bool,
    ) -> tuple[list[Any], dict[str, Any]]:
        """Return a client's new weights and the metrics of its last epoch, as tensors of the program being traced."""
        self._begin(weights, seeds, earlier)
        with proximal_term(self._model, weights, mu) if proximal else nullcontext():
            self._loop(plan, batch_size, data)
        self._model.optimizer.finalize_variable_values(self._model.trainable_variables)
        return [tf.identity(variable) for variable in self._model.weights], self._model.get_metrics_result()

    def _begin(self, weights: list[Any], seeds: Any, earlier: Any) -> None:
        for variable, value in zip(self._model.weights, weights, strict=True):
            variable.assign(value)
        for state, value in zip(self.states, tf.unstack(seeds), strict=True):
            state.assign(value)
        self._slots.reset(earlier)

    def _loop(self, plan: Any, batch_size: Any, data: Any) -> None:
        epochs, examples = tf.unstack(tf.shape(plan))

        def step(epoch: Any, start: Any) -> Any:
            stop = tf.minimum(start + batch_size, examples)
            chosen = plan[epoch, start:stop]
            self._model.train_step(tf.nest.map_structure(lambda tensor: tf.gather(tensor, chosen), data))
            return epoch, stop

        def one(epoch: Any) -> Any:
            self._model.reset_metrics()
            tf.while_loop(lambda _, start: start < examples, step, (epoch, tf.constant(0)), parallel_iterations=1)
            return (epoch + 1,)

        tf.while_loop(lambda epoch: epoch < epochs, one, (tf.constant(0),), parallel_iterations=1)


def draws_by_kernel(concrete: Any) -> bool:
    """Say whether a traced program draws from tf.random's stateful operations, whose state lies in their kernels."""
    graphs = [concrete.graph.as_graph_def().node, *(f.node_def for f in concrete.graph.as_graph_def().library.function)]
    return any(node.op in STATEFUL for nodes in graphs for node in nodes)


@contextmanager
def proximal_term(model: keras.Model, weights: list[Any], mu: Any) -> Iterator[None]:
    """Make `model.optimizer` add mu * (w - w_global) to the gradients while a step is traced.

    Li et al. 2020, arXiv:1812.06127, eq. 2: each client minimises F(w) + mu/2 * ||w - w_global||^2.
    """
    anchors = {id(variable): value for variable, value in zip(model.weights, weights, strict=True)}
    optimizer = model.optimizer
    apply = optimizer.apply_gradients

    def pulled(gradient: Any, variable: Any) -> Any:
        if gradient is None:
            return None
        pull = tf.cast(mu, variable.dtype) * (variable - anchors[id(variable)])
        return tf.convert_to_tensor(gradient) + tf.cast(optimizer.scale_loss(pull), gradient.dtype)

    optimizer.apply_gradients = lambda pairs: apply([(pulled(gradient, v), v) for gradient, v in pairs])
    try:
        yield
    finally:
        del optimizer.apply_gradients
