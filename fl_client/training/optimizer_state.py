"""A model's optimizers as they were just after they were built, so that no round inherits another's momentum."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_common.models.frameworks import keras, tf

Schedule = keras.optimizers.schedules.LearningRateSchedule


class Slots:
    """The just-built values of every optimizer found on a model, and of its bare tf.Variables and tf.random.Generators.

    Keras knows nothing of the latter two, so they are no part of the model that travels: each round finds them anew.
    `earlier` holds the local steps of the rounds before this one: schedules of the learning rate count from there,
    while what else an optimizer counts begins with the round.
    """

    def __init__(self, model: keras.Model, learning_rate: float = 0.0) -> None:
        self.earlier = keras.Variable(0, dtype="int64", trainable=False, name="earlier_steps")
        self._initial: dict[int, tuple[Any, NDArray[Any] | None]] = {}
        for generator in found(model, tf.random.Generator):
            self._record([generator.state])
        self._record(found(model, tf.Variable))
        for optimizer in found(model, keras.optimizers.Optimizer):
            if learning_rate:
                override(optimizer, learning_rate)
            self._go_on(optimizer)
            self._watch(optimizer)

    def reset(self, earlier: Any) -> None:
        """Write the just-built values back, and the number of earlier steps. In a tf.function, it is part of it."""
        self.earlier.assign(tf.cast(earlier, tf.int64))
        for variable, value in self._initial.values():
            variable.assign(tf.zeros(variable.shape, variable.dtype) if value is None else value)

    def initial(self, variable: Any) -> NDArray[Any]:
        """Return the just-built value of one of the optimizer's variables."""
        value = self._initial[id(variable)][1]
        return np.zeros(tuple(variable.shape), variable.dtype) if value is None else value

    def _go_on(self, optimizer: Any) -> None:
        """Have an optimizer's schedule count from the earlier steps on; also that of one inside it."""
        plain = optimizer._get_current_learning_rate

        def rate() -> Any:
            if not isinstance(optimizer._learning_rate, Schedule):
                return plain()
            steps = optimizer._iterations
            return optimizer._learning_rate(steps + keras.ops.cast(self.earlier, steps.dtype))

        optimizer._get_current_learning_rate = rate
        if (inner := getattr(optimizer, "inner_optimizer", None)) is not None:
            self._go_on(inner)

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
