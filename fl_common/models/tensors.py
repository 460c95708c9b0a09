"""Arrays and examples as TensorFlow's tensors, converted once and kept. Between the batch plan and a compiled step."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_common.data.examples import Examples, mapped
from fl_common.errors import Shown, TaskError
from fl_common.models.frameworks import keras, tf
from fl_common.models.weights import check_fit


class Tensors:
    """The tensors of the examples used last, so that a client's data goes to the device once."""

    def __init__(self, limit: int = 4) -> None:
        self._limit = limit
        self._kept: dict[int, tuple[Examples, Any]] = {}  # the examples are held, so that their ids stay theirs

    def of(self, examples: Examples) -> Any:
        """Return `examples` as tensors in the same nested structure. They must not be changed in place afterwards."""
        entry = self._kept.pop(id(examples), None) or (examples, mapped(_tensor, examples))
        self._kept[id(examples)] = entry
        while len(self._kept) > self._limit:
            self._kept.pop(next(iter(self._kept)))
        return entry[1]


def specs(tensors: Any) -> Any:
    """Return the TensorSpecs of `tensors` for any number of examples, so that one trace serves every partition."""
    return mapped(lambda tensor: tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype), tensors)


def in_order(arrays: Mapping[str, NDArray[Any]], names: Sequence[str], model: keras.Model) -> list[NDArray[Any]]:
    """Return `arrays` in the order of `model.weights`, called `names`. Raises TaskError where they do not fit."""
    check_fit(arrays, names, model)
    for name, variable in zip(names, model.weights, strict=True):
        if arrays[name].dtype.name != variable.dtype:
            raise TaskError(
                "{name}: the model's dtype is {wanted}; got {came}",
                name=Shown(name),
                wanted=Shown(variable.dtype),
                came=Shown(arrays[name].dtype.name),
            )
    return [arrays[name] for name in names]


def as_metrics(results: Mapping[str, Any]) -> dict[str, float]:
    """Return metric results as floats. A vector, such as a score for each class, gives `name_0`, `name_1`, ..."""
    metrics: dict[str, float] = {}
    for name, result in results.items():
        values = np.asarray(result)
        if values.ndim == 0:
            metrics[name] = float(values)
        else:
            metrics |= {f"{name}_{index}": float(value) for index, value in enumerate(values.ravel())}
    return metrics


def overrides(model: keras.Model, *methods: str) -> bool:
    """Say whether the model has its own version of any of Keras's `methods`."""
    return any(
        method in vars(model) or getattr(type(model), method) is not getattr(keras.Model, method) for method in methods
    )


def _tensor(array: NDArray[Any]) -> Any:
    # Keras's own fit turns every float into floatx; other types, uint8 pictures above all, are left as they are.
    return tf.convert_to_tensor(array.astype(keras.config.floatx(), copy=False) if array.dtype.kind == "f" else array)
