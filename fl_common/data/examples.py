"""Examples: what a task's loaders return, turned into NumPy arrays and checked. Between a task and local training."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_common.errors import DataError, Shown

Examples = tuple[Any, Any] | tuple[Any, Any, Any]
"""(x, y) or (x, y, sample_weight). Each is an array or a nested dict or tuple of arrays, all of one leading length."""

PLAIN = (str | bytes, bool | int | float | np.bool_ | np.number)  # what an array of objects may hold

EXPECTED = "(x, y) or (x, y, sample_weight) of arrays, or a finite tf.data.Dataset of them"


def leaves(tree: Any) -> Iterator[NDArray[Any]]:
    """Yield the arrays of a nested dict or tuple, dictionaries in the order of their sorted keys."""
    if isinstance(tree, dict):
        for key in sorted(tree):
            yield from leaves(tree[key])
    elif isinstance(tree, tuple | list):
        for item in tree:
            yield from leaves(item)
    else:
        yield tree


def mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    """Return `tree` with `function` applied to each of its arrays."""
    if isinstance(tree, dict):
        return {key: mapped(function, item) for key, item in tree.items()}
    if isinstance(tree, tuple | list):
        return tuple(mapped(function, item) for item in tree)
    return function(tree)


def count(examples: Examples) -> int:
    """Return the number of examples: the leading length of their arrays."""
    return next((len(array) for array in leaves(examples)), 0)


def take(examples: Examples, index: NDArray[Any] | slice) -> Examples:
    """Return the examples at `index`, an integer array or a slice. dtypes are kept."""
    chosen: Examples = mapped(lambda array: array[index], examples)
    return chosen


def hold_out(examples: Examples, fraction: float, seed: int) -> tuple[Examples, Examples]:
    """Split into (train, validation) after a shuffle drawn from `seed`. Training keeps at least one example."""
    train, validation = hold_out_rows(count(examples), fraction, seed)
    return take(examples, train), take(examples, validation)


def hold_out_rows(total: int, fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the ascending rows of (train, validation) among `total` examples, as `hold_out` splits them."""
    held = max(0, min(round(total * fraction), total - 1))
    order = np.random.default_rng([seed, total]).permutation(total)
    return np.sort(order[held:]), np.sort(order[:held])


def normalised(value: Any, source: str) -> Examples:
    """Return what a loader gave as checked examples. `source` names the loader in errors.

    Lists of numbers become arrays, lists of arrays become tuples (several inputs, as in Keras), tf.data datasets are
    read to their end (fl_common/data/tf_datasets.py). dtypes are kept. Raises DataError where the value is nothing of
    the kind, or its lengths differ.
    """
    if hasattr(value, "element_spec"):
        from fl_common.data.tf_datasets import read

        value = read(value, source)
    if not isinstance(value, tuple | list) or len(value) not in (2, 3):
        raise DataError(f"{{source}} must be {EXPECTED}; got {{value}}.", source=source, value=_described(value))
    examples: Examples = tuple(_as_arrays(item, source) for item in value)
    _check_lengths(examples, source)
    return examples


def _as_arrays(value: Any, source: str) -> Any:
    if isinstance(value, dict):
        return {key: _as_arrays(item, source) for key, item in value.items()}
    if isinstance(value, tuple) or _is_list_of_arrays(value):
        return tuple(_as_arrays(item, source) for item in value)
    if type(value).__name__ in ("RaggedTensor", "RaggedTensorValue", "SparseTensor", "SparseTensorValue"):
        raise DataError(
            "{source} holds a {kind}, but needs arrays with one shape for every example. Make it dense: "
            "RaggedTensor.to_tensor() fills up with zeros, tf.sparse.to_dense does the same.",
            source=source,
            kind=Shown(type(value).__name__),
        )
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DataError(
            "{source} must hold arrays with one shape for every example; {error}.", source=source, error=error
        ) from None
    return _checked_array(array, source)


def _is_list_of_arrays(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(getattr(item, "ndim", 0) for item in value)


def _checked_array(array: NDArray[Any], source: str) -> NDArray[Any]:
    # A pandas.DataFrame of booleans and numbers is an array of Python objects, and so is a list of texts in one.
    if array.dtype == object and any(all(isinstance(item, kind) for item in array.flat) for kind in PLAIN):
        array = np.asarray(array.tolist())
    if array.dtype == object:
        raise DataError(
            "{source} must hold numbers or text; got an array of Python objects, shape {shape}.",
            source=source,
            shape=array.shape,
        )
    if array.ndim == 0:
        raise DataError(
            "{source} must hold arrays with a leading dimension of examples; got the scalar {value!r}.",
            source=source,
            value=array,
        )
    return array


def _check_lengths(examples: Examples, source: str) -> None:
    for name, part in zip(("x", "y", "sample_weight"), examples, strict=False):
        if not list(leaves(part)):
            raise DataError(f"{{source}}: {name} holds no array. It must be {EXPECTED}.", source=source)
    lengths = {name: sorted({len(a) for a in leaves(part)}) for name, part in zip("xyw", examples, strict=False)}
    if len({length for found in lengths.values() for length in found}) > 1:
        raise DataError(
            "{source}: x, y and sample_weight must have the same number of examples; got {lengths}.",
            source=source,
            lengths=", ".join(f"{name}: {found}" for name, found in lengths.items()),
        )


def _described(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)} ({', '.join(type(item).__name__ for item in value[:4])})"
    return f"{type(value).__name__} {value!r:.80}"
