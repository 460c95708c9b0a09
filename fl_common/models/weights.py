"""A Keras model's variables <-> NumPy arrays by name: the variable's path without the model's own prefix."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_common.errors import Shown, TaskError
from fl_common.messages.arrays import Arrays
from fl_common.models.frameworks import keras


def names_of(model: keras.Model) -> list[str]:
    """Return the names of `model.weights`, in order.

    The first component of the paths is dropped where it is the model's own name, which Keras counts up
    (sequential, sequential_1, ...). Raises TaskError where two variables have the same name.
    """
    paths = [variable.path for variable in model.weights]
    prefix = f"{model.name}/"
    names = [path.removeprefix(prefix) for path in paths] if all(path.startswith(prefix) for path in paths) else paths
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise TaskError(
            "each variable needs a name of its own; {name} comes twice. Name the model's layers.",
            name=Shown(repeated[0]),
        )
    return names


def weights_of(model: keras.Model) -> Arrays:
    """Return copies of `model.weights` by name: trainable, then not (BatchNorm's statistics, counters)."""
    return {name: np.array(variable.numpy()) for name, variable in zip(names_of(model), model.weights, strict=True)}


def non_trainable_names(model: keras.Model) -> frozenset[str]:
    """Return the names of the variables that training does not move by gradient, such as BatchNorm's statistics."""
    fixed = {id(variable) for variable in model.non_trainable_weights}
    pairs = zip(names_of(model), model.weights, strict=True)
    return frozenset(name for name, variable in pairs if id(variable) in fixed)


def assign(model: keras.Model, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write `arrays` into `model.weights`: all or, where names or shapes differ from the model's (TaskError), none."""
    names = names_of(model)
    check_fit(arrays, names, model)
    for name, variable in zip(names, model.weights, strict=True):
        variable.assign(arrays[name])


def check_fit(arrays: Mapping[str, NDArray[Any]], names: Sequence[str], model: keras.Model) -> None:
    """Raise TaskError where names or shapes of `arrays` differ from those of `model.weights`, called `names`."""
    if set(names) != set(arrays):
        different = ", ".join(sorted(set(names) ^ set(arrays))[:3])
        raise TaskError(
            "these arrays are not this model's: {different} differ. Use one task and model on all sides.",
            different=Shown(different),
        )
    for name, variable in zip(names, model.weights, strict=True):
        if tuple(variable.shape) != arrays[name].shape:
            raise TaskError(
                "{name}: the model's shape is {wanted}; got {came}",
                name=Shown(name),
                wanted=Shown(tuple(variable.shape)),
                came=Shown(arrays[name].shape),
            )
