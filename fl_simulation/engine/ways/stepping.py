"""The loop over local steps that are taken for many clients at once, by tf.vectorized_map, while it is traced.

A step with fewer examples than the others is padded, and its padding has no weight.
"""

from typing import Any

from fl_common.models.frameworks import tf
from fl_simulation.engine.ways.functional import Carried, Functional

Tensor = Any


class Stepping:
    """The loop over steps, while it is traced."""

    def __init__(
        self, functional: Functional, fixed: list[Tensor], anchors: list[Tensor] | None, mu: Tensor, data: Any
    ) -> None:
        self._functional = functional
        self._fixed = fixed
        self._anchors = anchors
        self._mu = mu
        self._data = data
        self._average = functional.loss_scaled_by_examples()

    def run(
        self, carried: Carried, common: list[Tensor], rows: Tensor, sizes: Tensor, fresh: Tensor, active: Tensor
    ) -> Carried:
        """Take all steps. rows: [steps, clients, batch]; sizes, fresh: [steps, clients]; active: [steps]."""

        def all_at_once(step: Tensor, lists: Any, common: list[Tensor]) -> Any:
            after = self._together(Carried(*lists), common, rows[step], sizes[step], fresh[step])
            return step + 1, after.lists(), self._functional.advanced(common)

        def one(step: Tensor, lists: Any, common: list[Tensor]) -> Any:
            count = active[step]
            before = Carried(*lists)
            now = Carried(*([value[:count] for value in each] for each in before.lists()))
            after = self._together(now, common, rows[step, :count], sizes[step, :count], fresh[step, :count])
            whole = tf.equal(count, tf.shape(rows)[1])
            lists = tf.cond(whole, after.lists, lambda: _with_tail(after, before, count))
            return step + 1, lists, self._functional.advanced(common)

        start = (tf.constant(0), carried.lists(), common)
        known = rows.shape[1] is not None
        shapes = tf.nest.map_structure(lambda each: each.shape, start)
        loose = (shapes[0], tf.nest.map_structure(_any_number, shapes[1]), shapes[2])
        steps = tf.shape(active)[0]
        _, lists, _ = tf.while_loop(
            lambda step, *_: step < steps,
            all_at_once if known else one,
            start,
            shape_invariants=shapes if known else loose,
            parallel_iterations=1,
        )
        return Carried(*lists)

    def _together(self, carried: Carried, common: list[Tensor], rows: Tensor, sizes: Tensor, fresh: Tensor) -> Carried:
        batch = tf.nest.map_structure(lambda tensor: tf.gather(tensor, rows), self._data)
        present = tf.sequence_mask(sizes, rows.shape[1] or tf.shape(rows)[1], tf.float32)
        metrics = [tf.where(_aligned(fresh, value), tf.zeros_like(value), value) for value in carried.metrics]
        carried = Carried(carried.trainable, carried.slots, carried.seeds, metrics)

        def one(elements: Any) -> Any:
            lists, (batch, present, size) = elements
            x, y, *given = batch
            weights = self._weights(present, size, given)
            after = self._functional.step(
                Carried(*lists), self._fixed, common, self._anchors, self._mu, (x, y, weights, present), size
            )
            return after.lists()

        elements = (carried.lists(), (batch, present, tf.cast(sizes, tf.float32)))
        return Carried(*tf.vectorized_map(one, elements, warn=False))

    def _weights(self, present: Tensor, size: Tensor, given: list[Any]) -> Tensor:
        """Return the weights of a step's examples, so that an average is over the true ones: paddings have none."""
        scale = tf.cast(tf.shape(present)[0], tf.float32) / size if self._average else tf.constant(1.0)
        weights = present * scale
        return weights * tf.reshape(tf.cast(given[0], tf.float32), tf.shape(weights)) if given else weights


def _with_tail(after: Carried, before: Carried, count: Tensor) -> Any:
    """Return the lists of the clients that took a step, and behind them of those that had finished."""
    return tuple(
        [tf.concat([new, old[count:]], 0) for new, old in zip(news, olds, strict=True)]
        for news, olds in zip(after.lists(), before.lists(), strict=True)
    )


def _any_number(shape: Any) -> Any:
    return tf.TensorShape([None, *shape[1:]])


def _aligned(flags: Tensor, value: Tensor) -> Tensor:
    return tf.reshape(flags, [-1, *([1] * (len(value.shape) - 1))])
