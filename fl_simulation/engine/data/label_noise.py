"""Wrong labels in the data of simulated clients: flipped by hostile ones, or noise in everyone's. Around any Pool.

Training data only: an evaluation is on true labels. What is wrong depends on the seed and the partition alone.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_common.errors import SettingsError
from fl_common.models.frameworks import keras, tf
from fl_common.settings.schema import Settings
from fl_simulation.attacks.hostile_clients import hostile_clients
from fl_simulation.engine.data.pool import TRAIN, Part, Pool

NOISE = 0x1AB31

Labels = NDArray[Any]


def mislabelled(pool: Pool, model: keras.Model, settings: Settings, partitions: int) -> Pool:
    """Return the pool with the wrong labels that the settings ask for; itself where they ask for none.

    Raises SettingsError where the model does not tell how many classes there are.
    """
    flips = settings.hostile > 0 and settings.attack == "label_flip"
    if not flips and not settings.label_noise:
        return pool
    flipped = hostile_clients(settings, partitions) if flips else frozenset[int]()
    return MislabelledPool(pool, _classes(model), settings.seed, flipped, settings.label_noise)


class MislabelledPool:
    """A pool whose training labels are flipped for some partitions, and noisy for all."""

    def __init__(self, pool: Pool, classes: int, seed: int, flipped: frozenset[int], noise: float) -> None:
        self._pool = pool
        self._classes = classes
        self._seed = seed
        self._flipped = flipped
        self._noise = noise

    def __getattr__(self, name: str) -> Any:
        """Everything else is the pool's own."""
        return getattr(self._pool, name)

    def part(self, partitions: Sequence[int], which: int) -> Part:
        """Return the data of partitions, wrong where they are to be. Raises SettingsError where y are no classes."""
        data, rows = self._pool.part(partitions, which)
        if which != TRAIN or not (self._noise or self._flipped.intersection(partitions)):
            return data, rows
        x, y, *weights = data
        classes, form = as_classes(y, self._classes)
        for partition, mine in zip(partitions, rows, strict=True):
            classes[mine] = self._wrong(classes[mine], partition)
        return (x, tf.convert_to_tensor(form(classes)), *weights), rows

    def wrong(self, partitions: Sequence[int]) -> dict[int, Exception]:
        """Return what is wrong with the data as such."""
        return self._pool.wrong(partitions)

    def _wrong(self, labels: Labels, partition: int) -> Labels:
        if self._noise:
            rng = np.random.default_rng([self._seed, NOISE, partition])
            others = (labels + rng.integers(1, self._classes, labels.shape)) % self._classes
            labels = np.where(rng.random(labels.shape) < self._noise, others, labels)
        return self._classes - 1 - labels if partition in self._flipped else labels


def as_classes(y: Any, classes: int) -> tuple[NDArray[np.int64], Any]:
    """Return labels as numbers of classes, a copy, and the function that gives such numbers the form of `y` again.

    Raises SettingsError where `y` are neither numbers of classes nor one-hot.
    """
    if isinstance(y, dict | tuple | list):
        raise SettingsError("attack=label_flip and label_noise need one array of labels; the task's y are several")
    labels = y.numpy()
    if classes > 2 and labels.dtype.kind == "f" and labels.ndim > 1 and labels.shape[-1] == classes:
        eye = np.eye(classes, dtype=labels.dtype)
        return labels.argmax(axis=-1), lambda numbers: eye[numbers]
    numbers = labels.astype(np.int64)
    if not np.array_equal(numbers, labels) or (numbers.size and not 0 <= numbers.min() <= numbers.max() < classes):
        raise SettingsError(
            f"attack=label_flip and label_noise need labels that are classes 0 to {classes - 1}, or one-hot; "
            f"the task's y are {labels.dtype.name} from {labels.min():g} to {labels.max():g}. Use another attack."
        )
    return numbers, lambda wrong: wrong.astype(labels.dtype)


def _classes(model: keras.Model) -> int:
    shape = getattr(model, "output_shape", None)
    if not isinstance(shape, tuple) or not shape or not isinstance(shape[-1], int):
        raise SettingsError(
            f"attack=label_flip and label_noise need a model with one output of classes; this one's output is {shape}"
        )
    return max(2, shape[-1])
