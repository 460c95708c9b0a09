"""Weights of classes become weights of examples, as in Keras's fit. Between a task's loader and local training."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_common.data.examples import Examples
from fl_common.errors import DataError, TaskError


def parsed(value: Any, task: str) -> dict[int, float]:
    """Return what a task's class_weight() gave. Raises TaskError where it is no dict of class number to weight."""
    try:
        weights = {int(label): float(weight) for label, weight in value.items()} if isinstance(value, Mapping) else None
    except (TypeError, ValueError):
        weights = None
    if weights is None or not all(np.isfinite(weight) and weight >= 0 for weight in weights.values()):
        raise TaskError(
            "class_weight() of task {task} must return a weight from 0 up for each class, such as {{0: 1.0, 1: 5.0}}; "
            "got {value}.",
            task=task,
            value=f"{value!r:.80}",
        )
    return weights


def weighted(examples: Examples, weights: Mapping[int, float], source: str) -> Examples:
    """Return examples as (x, y, sample_weight): by their class, times the weight that they had.

    A class that is not named has weight 1. Raises DataError where y is not one array of classes or of one-hot rows.
    """
    x, y, *given = examples
    labels = _labels(y, source)
    by_class = np.ones(len(labels), np.float32)
    for label, weight in weights.items():
        by_class[labels == label] = weight
    return x, y, by_class * np.asarray(given[0], np.float32).reshape(-1) if given else by_class


def _labels(y: Any, source: str) -> NDArray[Any]:
    if isinstance(y, np.ndarray) and y.dtype.kind in "biuf":
        if y.size == len(y):
            return y.reshape(-1)
        if y.ndim == 2:
            return np.asarray(np.argmax(y, axis=-1))
    raise DataError(
        "{source}: class_weight needs y to be one array of class numbers or of one-hot rows. Give sample weights, "
        "(x, y, sample_weight), instead.",
        source=source,
    )
