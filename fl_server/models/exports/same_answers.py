"""Whether two answers are the same, as far as the arithmetic allows, and whether a model answers alike twice."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_common.errors import ExportError
from fl_common.models.frameworks import keras
from fl_server.models.exports.inputs import Inputs, Sample, answers, without_tensor_float_32
from fl_server.models.exports.reasons import reason

FLOOR = 1e-3  # of what an answer's largest number counts as, where all are smaller
TOLERANCES = {"float16": 2e-2, "bfloat16": 1e-1}
TOLERANCE = 1e-3  # of float32, whose sums another program may take in another order

Answers = Sequence[NDArray[Any]]


def tolerance(model: keras.Model) -> float:
    """Return by which part of an answer's largest number two of the model's may differ: by how coarsely it computes."""
    kinds = {layer.compute_dtype for layer in model._flatten_layers()}
    return max(TOLERANCES.get(kind, TOLERANCE) for kind in kinds)


def apart(answer: Answers, expected: Answers) -> float:
    """Return how far an answer is from the expected one, in parts of its largest number; inf for other shapes."""
    if len(answer) != len(expected):
        return float("inf")
    return max((_apart(mine, wanted) for mine, wanted in zip(answer, expected, strict=True)), default=0.0)


@without_tensor_float_32()
def hold(export: Callable[[Sample], Answers], samples: Sequence[Sample], allowed: float, what: str) -> None:
    """Raise ExportError where an export does not answer each sample as the model does, and alike when asked again."""
    for sample in samples:
        try:
            first, second = export(sample), export(sample)
        except Exception as error:
            raise ExportError(f"the {what} does not run here: {reason(error)}. Nothing was written.") from error
        worst = max(apart(first, sample.answers), apart(second, first))
        if not worst <= allowed:
            raise ExportError(
                f"the {what} does not answer as the model does: it is {worst:.2g} of the largest number off, where "
                f"{allowed:.0e} was expected. Nothing was written. Export with --format weights, and report it."
            )


def refuse_random(model: keras.Model, inputs: Inputs, allowed: float) -> None:
    """Raise ExportError for a model that draws at random although training is off: no export can answer as it does."""
    if all(apart(answers(model, sample.x), sample.answers) <= allowed for sample in inputs.samples):
        return
    drawing = [layer.name for layer in model._flatten_layers() if hasattr(layer, "seed_generator")]
    named = f" Layers that can draw: {', '.join(drawing)}." if drawing else ""
    raise ExportError(
        f"the model answers the same inputs differently each time, also with training off.{named} Have them draw in "
        "training only (`if training:`), or export with --format keras."
    )


def _apart(answer: NDArray[Any], wanted: NDArray[Any]) -> float:
    if answer.shape != wanted.shape:
        return float("inf")
    if "f" not in (_kind(wanted), _kind(answer)):
        return 0.0 if np.array_equal(answer, wanted) else float("inf")
    mine, there = answer.astype(np.float64), wanted.astype(np.float64)
    known = np.isfinite(there)
    if not np.array_equal(mine[~known], there[~known], equal_nan=True):
        return float("inf")
    scale = max(float(np.abs(there[known]).max(initial=0.0)), FLOOR)
    return float(np.abs(mine[known] - there[known]).max(initial=0.0)) / scale


def _kind(array: NDArray[Any]) -> str:
    return "f" if array.dtype.name == "bfloat16" else array.dtype.kind
