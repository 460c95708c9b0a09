"""Local training through Keras's own `fit`, for models with a train_step of their own and for callbacks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_client.training.optimizer_state import Slots
from fl_client.training.randomness import Randomness
from fl_common.data.batches import steps
from fl_common.models.evaluation import BATCH
from fl_common.models.frameworks import keras, tf


class Fit:
    """Runs `fit` over the batch plan; its datasets are built once for each client's data, so that nothing retraces."""

    def __init__(self, model: keras.Model, slots: Slots, randomness: Randomness, *, limit: int = 4) -> None:
        self._model = model
        self._slots = slots
        self._randomness = randomness
        self._limit = limit
        self._feeds: dict[tuple[int, int], tuple[Any, Feed]] = {}
        self._validations: dict[int, tuple[Any, Any]] = {}

    def run(
        self,
        weights: Sequence[NDArray[Any]],
        plan: Sequence[NDArray[np.int32]],
        data: Any,
        batch_size: int,
        callbacks: Sequence[Any],
        *,
        round: int,
        client: int,
        before: int = 0,
        validation: Any = None,
    ) -> tuple[list[NDArray[Any]], dict[str, Any]]:
        """Train from `weights` over `plan` and return the new weights and the metrics of the last epoch run.

        weights: in the order of `model.weights`. data: tensors of (x, y) or (x, y, sample_weight), and so are those of
        `validation`, which callbacks see as val_ metrics; these are not returned. before: earlier rounds, for schedules
        of the learning rate, and for callbacks the number of the epoch.
        """
        self._begin(weights, round, client, before * len(plan) * steps(len(plan[0]), batch_size))
        feed = self._feed(data, len(plan[0]), batch_size)
        options: dict[str, Any] = {"epochs": len(plan)}
        if callbacks:
            first = before * len(plan)
            options = {"initial_epoch": first, "epochs": first + len(plan), "validation_data": self._held(validation)}
        ordered = [Ordering(feed.order, plan, options.get("initial_epoch", 0)), *callbacks]
        history = self._model.fit(feed.dataset, shuffle=False, verbose=0, callbacks=ordered, **options)
        metrics = {name: values[-1] for name, values in history.history.items() if not name.startswith("val_")}
        return [np.array(variable) for variable in self._model.weights], metrics

    def _begin(self, weights: Sequence[NDArray[Any]], round: int, client: int, earlier: int) -> None:
        self._randomness.begin(round=round, client=client, tensorflow=True)
        self._randomness.assign(round=round, client=client)
        for variable, value in zip(self._model.weights, weights, strict=True):
            variable.assign(value)
        self._slots.reset(earlier)

    def _held(self, validation: Any) -> Any:
        """Return the validation data as a dataset of batches, the same one for the same data; None for None."""
        if validation is None:
            return None
        kept, dataset = self._validations.pop(id(validation), (validation, None))
        if dataset is None:
            dataset = tf.data.Dataset.from_tensor_slices(validation).batch(BATCH)
        self._validations[id(validation)] = kept, dataset
        while len(self._validations) > self._limit:
            self._validations.pop(next(iter(self._validations)))
        return dataset

    def _feed(self, data: Any, examples: int, batch_size: int) -> "Feed":
        key = (id(data), batch_size)
        entry = self._feeds.pop(key) if key in self._feeds else (data, Feed(data, examples, batch_size))
        self._feeds[key] = entry
        while len(self._feeds) > self._limit:
            self._feeds.pop(next(iter(self._feeds)))
        return entry[1]


class Feed:
    """A dataset of one epoch's batches, in an order that is written into a variable before each epoch."""

    def __init__(self, data: Any, examples: int, batch_size: int) -> None:
        self.order = tf.Variable(np.arange(examples, dtype=np.int32), trainable=False)
        options = tf.data.Options()
        options.deterministic = True
        options.autotune.enabled = False

        def batch(step: Any) -> Any:
            chosen = self.order[step * batch_size : tf.minimum((step + 1) * batch_size, examples)]
            return tf.nest.map_structure(lambda tensor: tf.gather(tensor, chosen), data)

        indices = tf.data.Dataset.range(steps(examples, batch_size), output_type=tf.int32)
        self.dataset = indices.map(batch).with_options(options)


class Ordering(keras.callbacks.Callback):  # type: ignore[misc]
    """Writes the plan's permutation of each epoch where the dataset reads it."""

    def __init__(self, order: Any, plan: Sequence[NDArray[np.int32]], first: int) -> None:
        super().__init__()
        self._first = first
        self._order = order
        self._plan = plan

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Keras asks for the epoch's iterator after this."""
        self._order.assign(self._plan[epoch - self._first])
