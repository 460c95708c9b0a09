"""A model's optimizers as they were just after they were built, so that no round inherits another's momentum."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_common.lean import keras, tf


class Slots:
    """The just-built values of every optimizer found on a model, and of its bare tf.Variables and tf.random.Generators.

    Keras knows nothing of the latter two, so they are no part of the model that travels: each round finds them anew.
    """

    def __init__(self, model: keras.Model, learning_rate: float = 0.0) -> None:
        self._initial: dict[int, tuple[Any, NDArray[Any] | None]] = {}
        for generator in found(model, tf.random.Generator):
            self._record([generator.state])
        self._record(found(model, tf.Variable))
        for optimizer in found(model, keras.optimizers.Optimizer):
            if learning_rate:
                override(optimizer, learning_rate)
            self._watch(optimizer)

    def reset(self) -> None:
        """Write the just-built values back. Inside a tf.function, it becomes part of it."""
        for variable, value in self._initial.values():
            variable.assign(tf.zeros(variable.shape, variable.dtype) if value is None else value)

    def initial(self, variable: Any) -> NDArray[Any]:
        """Return the just-built value of one of the optimizer's variables."""
        value = self._initial[id(variable)][1]
        return np.zeros(tuple(variable.shape), variable.dtype) if value is None else value

    def _watch(self, optimizer: Any) -> None:
        build = optimizer.build

        def recorded(variables: Any) -> None:
            # Built while a step is traced, a variable would have no value yet; outside of the trace it has.
            with tf.init_scope():
                build(variables)
            self._record(optimizer.variables)

        # Keras builds the optimizers of a custom train_step inside its first step, so listen for it.
        optimizer.build = recorded
        self._record(optimizer.variables)

    def _record(self, variables: list[Any]) -> None:
        for variable in variables:
            if id(variable) not in self._initial:
                with tf.init_scope():
                    value = np.array(variable.numpy())
                self._initial[id(variable)] = (variable, value if value.any() else None)


def override(optimizer: Any, learning_rate: float) -> None:
    """Set the learning rate of an optimizer; a schedule or a function is replaced by the constant."""
    try:
        optimizer.learning_rate = learning_rate
    except (TypeError, AttributeError):
        optimizer.learning_rate = lambda: learning_rate


def found(model: keras.Model, kind: type[Any]) -> list[Any]:
    """Return the objects of `kind` among the attributes of a model and of its layers, each once, in a fixed order."""
    values: dict[int, Any] = {}
    for layer in model._flatten_layers():
        for attribute in vars(layer).values():
            values |= {id(value): value for value in _inside(attribute) if isinstance(value, kind)}
    return list(values.values())


def _inside(attribute: Any) -> Iterator[Any]:
    if isinstance(attribute, dict):
        yield from attribute.values()
    elif isinstance(attribute, list | tuple):
        yield from attribute
    else:
        yield attribute
