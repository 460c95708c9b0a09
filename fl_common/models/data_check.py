"""Whether data fit a model, asked once before the first step, so that the answer is a sentence and not a traceback."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fl_common.data.examples import Examples, count, leaves, take
from fl_common.errors import DataError, Shown
from fl_common.trust.disclosure import type_of

if TYPE_CHECKING:
    from fl_common.models.frameworks import keras

Shape = tuple[int | None, ...]


def check_fit(model: "keras.Model", examples: Examples) -> None:
    """Raise DataError where the examples cannot train or test `model`, a compiled one with its variables built.

    Inputs are compared with the model's; labels with its output, for the cross-entropies; and where the model uses
    Keras's own train_step, its loss is computed once, on one example. No example fits any model.
    """
    if count(examples) == 0:
        return
    _check_inputs(model, examples[0])
    output = _output(model, examples)
    if isinstance(model.loss, dict | list | tuple) or not hasattr(output, "shape"):
        return
    _check_labels(_loss_name(model.loss), examples[1], tuple(output.shape[1:]))
    _check_loss(model, examples, output)


def _check_inputs(model: "keras.Model", x: Any) -> None:
    # A subclassed model has no `inputs` to compare with: there the call in _output is the check.
    tensors = getattr(model, "inputs", None)
    if not tensors:
        return
    if isinstance(x, dict):
        wanted = {tensor.name.split(":")[0]: tensor for tensor in tensors}
        if set(wanted) - set(x):
            raise DataError(
                "the model has inputs named {wanted}; the data have {came}.",
                wanted=Shown(sorted(wanted)),
                came=sorted(x),
            )
        pairs = [(wanted[name], array) for name, array in x.items() if name in wanted]
    else:
        arrays = list(leaves(x))
        if len(arrays) != len(tensors):
            raise DataError(
                "the model has {wanted} inputs; the data have {came} arrays in x.",
                wanted=Shown(len(tensors)),
                came=Shown(len(arrays)),
            )
        pairs = list(zip(tensors, arrays, strict=True))
    for tensor, array in pairs:
        if not _compatible(tuple(tensor.shape[1:]), array.shape[1:]):
            raise DataError(
                "the model takes inputs of shape {wanted} for each example; the data have {came}. "
                "Change the model's input or the data.",
                wanted=Shown(tuple(tensor.shape[1:])),
                came=Shown(array.shape[1:]),
            )


def _compatible(wanted: Shape, came: Shape) -> bool:
    """Whether shapes agree; None is any size, and a last dimension of 1 may be there or not, as Keras has it."""
    if abs(len(wanted) - len(came)) == 1:
        longer, shorter = sorted((wanted, came), key=len, reverse=True)
        return longer[-1] in (1, None) and _compatible(longer[:-1], shorter)
    return len(wanted) == len(came) and all(a in (None, b) for a, b in zip(wanted, came, strict=True))


def _output(model: "keras.Model", examples: Examples) -> Any:
    try:
        return model(take(examples, slice(0, 1))[0], training=False)
    except NotImplementedError:
        return None  # a model with its own train_step need not be callable
    except Exception as error:
        raise DataError(
            "the model cannot be called on the data: {kind}: {error}", kind=Shown(type_of(error)), error=error
        ) from error


def _loss_name(loss: Any) -> str:
    if isinstance(loss, str):
        from fl_common.models.frameworks import keras

        loss = keras.losses.get(loss)
    function = getattr(loss, "fn", loss)
    return str(getattr(function, "__name__", type(function).__name__))


def _check_labels(loss: str, y: Any, output: tuple[int, ...]) -> None:
    if not isinstance(y, np.ndarray):
        return
    units = output[-1] if output else 1
    match loss:
        case "sparse_categorical_crossentropy":
            _check_range(y, units - 1, f"the model has {units} outputs, so labels must be integers in [0, {units - 1}]")
            _check_size(y, output[:-1])
        case "categorical_crossentropy":
            _check_size(y, output)
        case "binary_crossentropy":
            _check_range(y, 1, "the loss is binary_crossentropy, so labels must lie in [0, 1]")
            _check_size(y, output)


def _check_range(y: Any, highest: int, expected: str) -> None:
    if y.dtype.kind not in "biuf":
        raise DataError(
            "{expected}; got labels of dtype {dtype}. Write them as numbers.", expected=Shown(expected), dtype=y.dtype
        )
    low, high = y.min(), y.max()
    if not (low >= 0 and high <= highest):
        raise DataError(
            "{expected}; got labels from {low} to {high}. Change the labels or the model's output.",
            expected=Shown(expected),
            low=low,
            high=high,
        )


def _check_size(y: Any, output: tuple[int, ...]) -> None:
    if math.prod(y.shape[1:]) != math.prod(output):
        raise DataError(
            "the model's loss takes labels of shape {wanted} for each example; got {came}. "
            "Integer classes go with sparse_categorical_crossentropy, one-hot ones with categorical_crossentropy.",
            wanted=Shown(output),
            came=Shown(y.shape[1:]),
        )


def _check_loss(model: "keras.Model", examples: Examples, output: Any) -> None:
    from fl_common.models.frameworks import keras

    if type(model).train_step is not keras.Model.train_step or type(model).compute_loss is not keras.Model.compute_loss:
        return
    x, y, *_ = take(examples, slice(0, 1))
    try:
        model.compute_loss(x=x, y=y, y_pred=output, training=False)
    except Exception as error:
        raise DataError(
            "the model's loss cannot be computed on the data: {kind}: {error}. "
            "Compare the shape of the labels with that of the model's output.",
            kind=Shown(type_of(error)),
            error=error,
        ) from error
