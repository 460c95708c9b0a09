"""How many clients train at once under a bound of memory: an estimate from the model's and the batch's sizes."""

from math import prod
from typing import Any

import numpy as np

from fl_common.errors import SettingsError
from fl_common.models.frameworks import keras, tf
from fl_common.settings.schema import Settings

GB = 1e9
COPIES = 4  # of the weights while a step is taken: before, gradient, update, after


def clients_at_once(model: keras.Model, data: Any, settings: Settings, *, together: bool) -> int:
    """Return how many clients fit. together: each has its own weights while it trains, not only when it is done.

    Raises SettingsError where not even one does.
    """
    weights = sum(_bytes(each) for each in model.weights)
    slots = sum(_bytes(each) for each in model.optimizer.variables)
    memory_gb = settings.memory_gb
    step = settings.batch_size * (2 * activations(model) + sum(_example(tensor) for tensor in tf.nest.flatten(data)))
    one = COPIES * weights + 2 * slots + step
    if one > memory_gb * GB:
        raise SettingsError(
            f"memory_gb must be at least {one / GB:.2g} for one client of this model; got {memory_gb:g}. "
            f"Set it with --set memory_gb={max(one / GB, 0.01):.2g}"
        )
    return int(memory_gb * GB / one) if together else max(1, int((memory_gb * GB - one) / max(2 * weights, 1)))


def _bytes(variable: Any) -> int:
    size: int = np.dtype(keras.backend.standardize_dtype(variable.dtype)).itemsize
    return prod(int(side) for side in variable.shape) * size


def activations(model: keras.Model) -> int:
    """Return the bytes of all layers' outputs for one example, where the model tells them."""
    total = 0
    for layer in model._flatten_layers(include_self=False):
        try:
            outputs = keras.tree.flatten(layer.output)
        except (AttributeError, ValueError):
            continue  # a layer inside a subclassed model has no output of its own
        total += sum(prod(size or 1 for size in each.shape[1:]) * 4 for each in outputs)
    return total


def _example(tensor: Any) -> int:
    return prod(int(side) for side in tensor.shape[1:]) * (int(tensor.dtype.size) + 4)  # as it is kept, and as floats
