"""A model's local step as a pure function over lists of tensors, so that it can be vectorised over clients.

The same mathematics as Keras's own train_step: forward, loss, gradients, the model's optimizer, metrics.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fl_common.models.frameworks import keras, tf

StatelessScope = keras.src.backend.common.stateless_scope.StatelessScope
PORTABLE = keras.src.optimizers.base_optimizer.BaseOptimizer  # the rules without TensorFlow's distribution strategies
PORTABLE_METHODS = ("_backend_update_step", "_apply_weight_decay")
AVERAGES = ("sum_over_batch_size", "mean")


@dataclass(frozen=True)
class Carried:
    """What a client carries from step to step, as lists of tensors: it starts equal for all clients but for seeds."""

    trainable: list[Any]
    slots: list[Any]
    seeds: list[Any]
    metrics: list[Any]

    def lists(self) -> tuple[list[Any], list[Any], list[Any], list[Any]]:
        """Return the four lists, as TensorFlow's control flow takes them."""
        return self.trainable, self.slots, self.seeds, self.metrics


class Functional:
    """One model's step. The model's optimizer and metrics must be built; its own variables are never written.

    seeds: the states of its layers' random generators. earlier: the variable that a schedule of the learning rate
    counts from; it is the last of `slots`.
    """

    def __init__(self, model: keras.Model, seeds: Sequence[Any], earlier: Any) -> None:
        self.model = model
        optimizer = model.optimizer
        self.trainable = list(model.trainable_variables)
        self.seeds = list(seeds)
        chosen = {id(each) for each in (*self.trainable, *self.seeds)}
        self.fixed = [each for each in model.weights if id(each) not in chosen]
        # The step count and the learning rate are the same for every client that still trains.
        common = {id(optimizer.iterations), id(optimizer._learning_rate)}
        self.common = [each for each in optimizer.variables if id(each) in common]
        self.slots = [*(each for each in optimizer.variables if id(each) not in common), earlier]
        self.metrics = list(model.metrics_variables)
        self._keys = {id(each): optimizer._var_key(each) for each in self.trainable}

    def loss_scaled_by_examples(self) -> bool:
        """Say whether the loss is an average over the examples of a step, and not their sum."""
        return all(each.reduction in AVERAGES for each in losses_of(self.model))

    def step(
        self,
        carried: Carried,
        fixed: Sequence[Any],
        common: Sequence[Any],
        anchors: Sequence[Any] | None,
        mu: Any,
        batch: tuple[Any, Any, Any, Any],
        examples: Any,
    ) -> Carried:
        """Return what a client carries after one local step.

        batch: x, y, weights of the loss [batch], 0 for padding, and weights of the metrics [batch], 1 or 0.
        common: the optimizer's step count and learning rate. anchors: FedProx's, with mu. examples: true ones, scalar.
        """
        x, y, weights, present = batch
        gradients, loss, y_pred, seeds = self.differentiated(carried, fixed, (x, y, weights))
        if anchors is not None:
            gradients = [
                None if gradient is None else gradient + tf.cast(mu, value.dtype) * (value - anchor)
                for gradient, value, anchor in zip(gradients, carried.trainable, anchors, strict=True)
            ]
        trainable, slots = self._apply(gradients, carried, common)
        metrics = self.measured(carried.metrics, loss, examples, y, y_pred, present)
        return Carried(trainable, slots, seeds, metrics)

    def differentiated(
        self, carried: Carried, fixed: Sequence[Any], batch: tuple[Any, Any, Any]
    ) -> tuple[list[Any], Any, Any, list[Any]]:
        """Return the loss's gradients, the loss, the model's output and the seeds after it.

        batch: x, y, weights of the loss [batch], None for none.
        """
        x, y, weights = batch
        with tf.GradientTape() as tape:
            for each in carried.trainable:
                tape.watch(each)
            with self._scope(carried, fixed) as scope:
                y_pred = self.model(x, training=True) if self.model._call_has_training_arg else self.model(x)
                loss = self.model._compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=weights, training=True)
        gradients = [_dense(each) for each in tape.gradient(loss, carried.trainable)]
        return gradients, loss, y_pred, [scope.get_current_value(each) for each in self.seeds]

    def advanced(self, common: Sequence[Any]) -> list[Any]:
        """Return the optimizer's step count and learning rate after a step."""
        iterations = self.model.optimizer.iterations
        return [value + 1 if each is iterations else value for each, value in zip(self.common, common, strict=True)]

    def results(self, metrics: Sequence[Any]) -> dict[str, Any]:
        """Return the metrics by name from their variables' values."""
        with StatelessScope(state_mapping=list(zip(self.metrics, metrics, strict=True))):
            results: dict[str, Any] = self.model.get_metrics_result()
        return results

    def _scope(self, carried: Carried, fixed: Sequence[Any]) -> Any:
        mapping = [
            *zip(self.trainable, carried.trainable, strict=True),
            *zip(self.seeds, carried.seeds, strict=True),
            *zip(self.fixed, fixed, strict=True),
        ]
        return StatelessScope(state_mapping=mapping)

    def _apply(self, gradients: list[Any], carried: Carried, common: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        optimizer = self.model.optimizer
        mapping = [
            *zip(self.trainable, carried.trainable, strict=True),
            *zip(self.slots, carried.slots, strict=True),
            *zip(self.common, common, strict=True),
        ]
        with StatelessScope(state_mapping=mapping) as scope, self._portable(optimizer):
            optimizer.apply(gradients, self.trainable)
        return (
            [scope.get_current_value(each) for each in self.trainable],
            [scope.get_current_value(each) for each in self.slots],
        )

    @contextmanager
    def _portable(self, optimizer: Any) -> Iterator[None]:
        """Let the optimizer write into a stateless scope, which Keras refuses on TensorFlow."""
        replaced = {
            "assign": lambda variable, value: variable.assign(tf.cast(value, variable.dtype)),
            "assign_add": lambda variable, value: variable.assign(variable + tf.cast(value, variable.dtype)),
            "assign_sub": lambda variable, value: variable.assign(variable - tf.cast(value, variable.dtype)),
            "_var_key": lambda variable: self._keys[id(variable)],
        } | {name: getattr(PORTABLE, name).__get__(optimizer) for name in PORTABLE_METHODS}
        for name, method in replaced.items():
            object.__setattr__(optimizer, name, method)
        try:
            yield
        finally:
            for name in replaced:
                object.__delattr__(optimizer, name)

    def measured(self, values: Sequence[Any], loss: Any, examples: Any, y: Any, y_pred: Any, present: Any) -> list[Any]:
        """Return the values of the metrics' variables after a step, from those before it. present: None for all."""
        model = self.model
        with StatelessScope(state_mapping=list(zip(self.metrics, values, strict=True))) as scope:
            model._loss_tracker.update_state(loss, sample_weight=examples)
            compiled = model._compile_metrics
            if compiled is not None:
                truth, predicted = keras.tree.flatten(y)[0], keras.tree.flatten(y_pred)[0]
                for group in compiled._flat_metrics:
                    if group:
                        group.update_state(truth, predicted, present)
        return [scope.get_current_value(each) for each in self.metrics]


def losses_of(model: keras.Model) -> list[Any]:
    """Return the loss objects of a compiled model that was built on data."""
    compiled = model._compile_loss
    return [] if compiled is None else [each.loss for each in compiled._flat_losses or () if each.loss is not None]


def _dense(gradient: Any) -> Any:
    return tf.convert_to_tensor(gradient) if isinstance(gradient, tf.IndexedSlices) else gradient
