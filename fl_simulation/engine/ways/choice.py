"""Which way a model can be trained, told by its layers, its optimizer and its metrics before anything is traced.

What looks across the examples of a step is not told by types: padding.py tries it.
"""

from collections.abc import Iterator
from typing import Any

from fl_client.training.trainer import LocalTrainer
from fl_common.models.frameworks import keras
from fl_simulation.engine.ways.functional import AVERAGES, losses_of

layers = keras.layers

# Layers whose output for one example does not depend on the others of its batch, and that change no variable.
# fmt: off
ELEMENTWISE = (
    "InputLayer", "Dense", "EinsumDense", "Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax", "Flatten",
    "Reshape", "Permute", "RepeatVector", "Rescaling", "Normalization", "Identity", "Dropout", "SpatialDropout1D",
    "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "LayerNormalization", "UnitNormalization", "Add",
    "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate", "Dot", "Cropping1D", "ZeroPadding1D",
    "UpSampling1D", "GlobalAveragePooling1D", "GlobalMaxPooling1D", "GlobalAveragePooling2D", "GlobalMaxPooling2D",
    "Embedding",
)
# Worth a race against the loop: recurrence and attention have loops or large products of their own.
RACED = (
    "LSTM", "GRU", "SimpleRNN", "LSTMCell", "GRUCell", "SimpleRNNCell", "Bidirectional", "TimeDistributed",
    "MultiHeadAttention", "Attention",
)
# fmt: on
TAKEN = tuple(getattr(layers, name) for name in (*ELEMENTWISE, *RACED))
CONTAINERS = (keras.Sequential, keras.Model, keras.src.models.functional.Functional)


def refusals(trainer: LocalTrainer) -> dict[str, str]:
    """Return why a way cannot train the model, by the way's name; a way that can is absent. "keras" always can."""
    found: dict[str, str] = {}
    for name, reasons in (("vectorized", against_vectorized), ("loop", against_loop)):
        if reason := next(reasons(trainer), None):
            found[name] = reason
    return found


def shows_rounding(model: keras.Model) -> bool:
    """Say whether a difference in rounding, of 1e-8 a step, can grow to more than 1e-5 in the weights.

    A bias before BatchNormalization has a gradient that is zero but for rounding, and an optimizer that divides by the
    gradient's size makes a whole step of it.
    """
    normalises = any(isinstance(layer, layers.BatchNormalization) for layer in model._flatten_layers())
    return normalises and not isinstance(model.optimizer, keras.optimizers.SGD)


def raced(model: keras.Model) -> bool:
    """Say whether only a trial tells if all clients at once are faster than one after the other."""
    kinds = tuple(getattr(layers, name) for name in RACED)
    return any(isinstance(layer, kinds) for layer in model._flatten_layers())


def against_loop(trainer: LocalTrainer) -> Iterator[str]:
    """Yield reasons why clients cannot train one after the other in one program."""
    if trainer.task.callbacks is not None and trainer.task.callbacks():
        yield "the task has callbacks"
    if trainer.model.run_eagerly:
        yield "the model is compiled with run_eagerly"
    if not trainer.plain:
        yield "the model has a train_step, compute_metrics or fit of its own"


def against_vectorized(trainer: LocalTrainer) -> Iterator[str]:
    """Yield reasons why the whole cohort cannot be one vectorised step."""
    yield from against_loop(trainer)
    model = trainer.model
    for layer in model._flatten_layers():
        yield from _against_layer(layer, model)
    yield from _against_losses(model)
    yield from _against_optimizer(model)
    yield from _against_metrics(model)


def _against_layer(layer: Any, model: Any) -> Iterator[str]:
    told = f"layer {layer.name} ({type(layer).__name__})"
    if type(layer) in CONTAINERS:
        return
    if type(layer) not in TAKEN:
        yield f"{told} is not one that is known to treat each example alone, without a convolution or state"
    if getattr(layer, "activity_regularizer", None) is not None:
        yield f"{told} has an activity_regularizer, which padded examples would reach"
    if getattr(layer, "mask_zero", False):
        yield f"{told} masks, which changes the average of the loss"
    if getattr(layer, "stateful", False):
        yield f"{told} keeps its state from batch to batch"
    if isinstance(layer, layers.Embedding) and not _plain_sgd(model.optimizer):
        yield f"{told} has sparse gradients, which {type(model.optimizer).__name__} applies in a way of its own"
    if layer.dtype_policy.compute_dtype != "float32":
        yield f"{told} computes in {layer.dtype_policy.compute_dtype}"


def _plain_sgd(optimizer: Any) -> bool:
    return type(optimizer) is keras.optimizers.SGD and not optimizer.momentum


def _against_losses(model: Any) -> Iterator[str]:
    if type(model).compute_loss is not keras.Model.compute_loss:
        yield "the model has a compute_loss of its own"
    if len(model.outputs if getattr(model, "outputs", None) else [0]) > 1:
        yield "the model has several outputs"
    kinds = {loss.reduction in AVERAGES for loss in losses_of(model)}
    if len(kinds) > 1 or any(loss.reduction not in (*AVERAGES, "sum") for loss in losses_of(model)):
        yield "the loss is neither an average nor a sum over the examples"


def _against_optimizer(model: Any) -> Iterator[str]:
    optimizer = model.optimizer
    told = type(optimizer).__name__
    if not type(optimizer).__module__.startswith("keras.src.optimizers") or isinstance(
        optimizer, keras.optimizers.LossScaleOptimizer
    ):
        yield f"the optimizer {told} is not one of Keras's own that is known to work so"
    if optimizer.use_ema or optimizer.gradient_accumulation_steps:
        yield f"the optimizer {told} averages weights or accumulates gradients over steps"


def _against_metrics(model: Any) -> Iterator[str]:
    compiled = model._compile_metrics
    if compiled is None:
        return
    if compiled._user_weighted_metrics:
        yield "the model has weighted_metrics"
    for metric in _flat(compiled._user_metrics):
        if isinstance(metric, keras.metrics.Metric) and not type(metric).__module__.startswith("keras.src.metrics"):
            yield f"the metric {metric.name} ({type(metric).__name__}) may not know weights, which padding needs"


def _flat(tree: Any) -> list[Any]:
    return [each for each in keras.tree.flatten(tree) if each is not None] if tree else []
