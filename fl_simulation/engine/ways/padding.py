"""Whether padding a step with examples of weight 0 changes it, found by trying. Between a model and its vectorised way.

A loss, a metric or a layer that looks across the examples of a step sees the padding, whatever its weight.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_client.training.trainer import LocalTrainer
from fl_common.data.examples import count
from fl_common.models.frameworks import keras, tf
from fl_simulation.engine.ways.functional import Carried, Functional

TRUE, PADDED = 8, 13  # examples of the trial's steps
CLOSE, NOISE = 1e-3, 1e-5  # of a tensor's largest value; and of the largest of all

Tensor = Any


def looks_across(trainer: LocalTrainer, data: Any) -> str:
    """Return what in the model looks across the examples of a step, as a sentence; "" where nothing does.

    The model's loss and metrics must be built. data: tensors of (x, y) or (x, y, sample_weight), of any clients; with
    fewer than PADDED examples the trial may miss something, and with one, which is never padded, it finds nothing.
    """
    examples = count(data)
    if examples < 2:
        return ""
    functional = Functional(trainer.model, trainer.randomness.states()[1:], trainer.slots.earlier)
    order = np.unique(np.linspace(0, examples - 1, min(PADDED, examples)).astype(np.int32))
    true = min(TRUE, len(order) - 1)
    try:
        return _seen(functional, data, order, true) or _seen(functional, data, order[::-1].copy(), true)
    except Exception as error:  # noqa: BLE001  a model that cannot take a step in this way is trained in another
        return f"a trial of a padded step could not be made: {type(error).__name__}"


def _seen(functional: Functional, data: Any, rows: NDArray[np.int32], true: int) -> str:
    """Return what sees the rows behind the first `true`; "" where nothing does."""
    model = functional.model
    start = _start(functional)
    fixed = [tf.convert_to_tensor(each) for each in functional.fixed]
    plain, padded = _picked(data, rows[:true]), _picked(data, rows)
    x, y, *given = plain
    alone = functional.differentiated(start, fixed, (x, y, given[0] if given else None))
    present = tf.constant([1.0] * true + [0.0] * (len(rows) - true))
    scale = len(rows) / true if functional.loss_scaled_by_examples() else 1.0
    weights = present * scale
    padded_x, padded_y, *padded_given = padded
    if padded_given:
        weights *= tf.reshape(tf.cast(padded_given[0], tf.float32), weights.shape)
    together = functional.differentiated(start, fixed, (padded_x, padded_y, weights))
    if not _alike([alone[2]], [tf.nest.map_structure(lambda each: each[:true], together[2])]):
        return "a layer looks across the examples of a step, so that padding would change it"
    if not _alike([alone[1]], [together[1]]) or not _alike(alone[0], together[0]):
        return f"the loss ({_loss_name(model)}) looks across the examples of a step, so that padding would change it"
    return _seen_by_metrics(functional, (y, *alone[1:3]), (padded_y, *together[1:3]), present)


def _seen_by_metrics(
    functional: Functional, alone: tuple[Any, Any, Any], together: tuple[Any, Any, Any], present: Tensor
) -> str:
    """The same of the metrics. alone, together: y, loss and output without and with padding."""
    zeros = [tf.zeros(each.shape, each.dtype) for each in functional.metrics]
    number = tf.reduce_sum(present)
    theirs = functional.measured(zeros, alone[1], number, alone[0], alone[2], None)
    try:
        ours = functional.measured(zeros, together[1], number, together[0], together[2], present)
    except (tf.errors.OpError, ValueError, TypeError):
        return "a metric does not take a weight for each example, which padding needs"
    for variable, one, other in zip(functional.metrics, theirs, ours, strict=True):
        if not _alike([one], [other]):
            return f"a metric ({variable.path}) looks across the examples of a step, so that padding would change it"
    return ""


def _start(functional: Functional) -> Carried:
    """Return weights beside those that training begins with: layers of zeros would hide what stands before them."""
    rng = np.random.default_rng(7)
    seeds = [tf.constant([7, 0], tf.int64) for _ in functional.seeds]
    moved = [each + rng.normal(0, 0.05, each.shape).astype(each.dtype) for each in functional.trainable]
    return Carried([tf.convert_to_tensor(each) for each in moved], [], seeds, [])


def _picked(data: Any, rows: NDArray[np.int32]) -> Any:
    return tf.nest.map_structure(lambda tensor: tf.gather(tensor, rows), data)


def _alike(ones: Sequence[Any], others: Sequence[Any]) -> bool:
    pairs = [
        (np.asarray(one, np.float64), np.asarray(other, np.float64))
        for one, other in zip(_flat(ones), _flat(others), strict=True)
    ]
    if any(one.shape != other.shape for one, other in pairs):
        return False
    if not all(np.isfinite(one).all() and np.isfinite(other).all() for one, other in pairs):
        return True  # examples that overflow tell nothing
    largest = max((_largest(one) for one, _ in pairs), default=0.0)
    return all(np.allclose(other, one, rtol=0, atol=CLOSE * _largest(one) + NOISE * largest) for one, other in pairs)


def _largest(array: NDArray[Any]) -> float:
    return float(np.max(np.abs(array), initial=0.0))


def _flat(tree: Any) -> list[Any]:
    return [each for each in keras.tree.flatten(tree) if each is not None]


def _loss_name(model: keras.Model) -> str:
    loss = model.loss
    return loss if isinstance(loss, str) else str(getattr(loss, "name", None) or getattr(loss, "__name__", loss))
