"""The whole cohort as one program: every local step is taken for all clients at once, by tf.vectorized_map.

Clients stand in order of their numbers of steps, most first, so that those who have finished are a tail that is left
out of the next step. A step with fewer examples than the others is padded, and its padding has no weight.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_client.training import LocalTrainer
from fl_common.arrays import Arrays
from fl_common.evaluation import build_metrics
from fl_common.lean import tf
from fl_common.tensors import specs
from fl_simulation.functional import Carried, Functional
from fl_simulation.rules import register
from fl_simulation.work import Cohort, Outcome

Tensor = Any
Shape = tuple[int, int] | None

OWN_PROGRAMS = 2


class Vectorized:
    """Trains cohorts of one model. One trace serves every round, cohort and size; FedProx has one of its own."""

    name = "vectorized"

    def __init__(self, trainer: LocalTrainer) -> None:
        register()
        self.traces = 0
        self._model = trainer.model
        self._slots = trainer.slots
        self._randomness = trainer.randomness
        self._names = trainer.names
        self._functional: Functional | None = None
        self._programs: dict[tuple[bool, bool, Shape], Any] = {}
        self._shapes: set[tuple[int, int]] = set()

    def train(self, weights: Sequence[NDArray[Any]], cohort: Cohort, data: Any, *, mu: float, mean: bool) -> Outcome:
        """Train each client of the cohort from `weights`, which are in the order of `model.weights`.

        data: resident tensors of (x, y) or (x, y, sample_weight). mean: return the clients' weighted mean only.
        """
        work = _Steps(cohort)
        program = self._program(data, proximal=mu > 0, mean=mean, shape=self._shape(work))
        seeds = self._seeds(cohort)[work.order]
        trained, metrics, finite = program(
            list(weights),
            seeds,
            work.rows,
            work.sizes,
            work.fresh,
            work.active,
            cohort.examples[work.order].astype(np.float32),
            np.float32(mu),
            data,
        )
        back = np.argsort(work.order)
        return Outcome(
            self._arrays(trained, weights, back if not mean else None),
            {name: np.asarray(value)[back] for name, value in metrics.items()},
            np.asarray(finite)[back],
        )

    def _arrays(self, trained: Sequence[Any], weights: Sequence[NDArray[Any]], back: Any) -> Arrays:
        places = {id(each): place for place, each in enumerate(self._model.trainable_variables)}
        arrays: Arrays = {}
        for name, variable, before in zip(self._names, self._model.weights, weights, strict=True):
            if id(variable) in places:
                value = np.asarray(trained[places[id(variable)]])
                arrays[name] = value if back is None else value[back]
            else:  # what no gradient moves: no layer that this way takes changes it
                arrays[name] = before if back is None else np.broadcast_to(before, (len(back), *before.shape))
        return arrays

    def _seeds(self, cohort: Cohort) -> NDArray[np.int64]:
        """Return the state of each client's random generators at the start of the round, [clients, generators, 2]."""
        states = len(self._functional.seeds) if self._functional else 0
        if not states:
            return np.zeros((len(cohort), 0, 2), np.int64)
        values = [
            self._randomness.values(states + 1, round=cohort.round, client=client)[1:] for client in cohort.clients
        ]
        return np.stack(values)

    def _shape(self, work: "_Steps") -> Shape:
        """Return the numbers of clients and of examples in a step for a program of their own, while these are few.

        A program that knows them has half the operations. None: any.
        """
        shape = (work.rows.shape[1], work.rows.shape[2])
        if not work.even or (shape not in self._shapes and len(self._shapes) >= OWN_PROGRAMS):
            return None
        self._shapes.add(shape)
        return shape

    def _program(self, data: Any, *, proximal: bool, mean: bool, shape: Shape) -> Any:
        key = (proximal, mean, shape)
        if key not in self._programs:
            self._randomness.install()
            build_metrics(self._model, data)
            self._functional = self._functional or Functional(self._model, self._randomness.states()[1:])
            self._programs[key] = self._traced(self._functional, data, proximal, mean, shape)
        return self._programs[key]

    def _traced(self, functional: Functional, data: Any, proximal: bool, mean: bool, shape: Shape) -> Any:
        def train(
            weights: list[Tensor],
            seeds: Tensor,
            rows: Tensor,
            sizes: Tensor,
            fresh: Tensor,
            active: Tensor,
            examples: Tensor,
            mu: Tensor,
            data: Any,
        ) -> Any:
            self.traces += 1
            values = dict(zip(map(id, self._model.weights), weights, strict=True))
            anchors = [values[id(each)] for each in functional.trainable]
            fixed = [values[id(each)] for each in functional.fixed]
            loop = _Loop(functional, fixed, anchors if proximal else None, mu, data)
            carried = self._begin(functional, anchors, seeds)
            carried = loop.run(carried, self._common(functional), rows, sizes, fresh, active)
            metrics = tf.vectorized_map(functional.results, carried.metrics, warn=False)
            finite = _finite(carried.trainable)
            trained = _mean(carried.trainable, examples, finite) if mean else carried.trainable
            return trained, metrics, finite

        function = tf.function(train, autograph=False, reduce_retracing=True)
        clients, batch = shape or (None, None)
        function.get_concrete_function(
            [tf.TensorSpec(weight.shape, weight.dtype) for weight in self._model.weights],
            tf.TensorSpec((clients, len(functional.seeds), 2), tf.int64),
            tf.TensorSpec((None, clients, batch), tf.int32),
            tf.TensorSpec((None, clients), tf.int32),
            tf.TensorSpec((None, clients), tf.bool),
            tf.TensorSpec((None,), tf.int32),
            tf.TensorSpec((clients,), tf.float32),
            tf.TensorSpec((), tf.float32),
            specs(data),
        )
        return function

    def _begin(self, functional: Functional, trainable: list[Tensor], seeds: Tensor) -> Carried:
        clients = seeds.shape[0] or tf.shape(seeds)[0]
        slots = [tf.constant(self._slots.initial(each)) for each in functional.slots]
        metrics = [tf.zeros(each.shape, each.dtype) for each in functional.metrics]
        return Carried(
            [_repeated(value, clients) for value in trainable],
            [_repeated(value, clients) for value in slots],
            tf.unstack(seeds, axis=1),
            [_repeated(value, clients) for value in metrics],
        )

    def _common(self, functional: Functional) -> list[Tensor]:
        return [tf.constant(self._slots.initial(each)) for each in functional.common]


class _Loop:
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


class _Steps:
    """A cohort's steps as arrays: clients in the order of their numbers of steps, most first."""

    def __init__(self, cohort: Cohort) -> None:
        batch = min(cohort.batch_size, int(cohort.examples.max()))
        counts = np.array([sum(-(-len(epoch) // batch) for epoch in plan) for plan in cohort.plans])
        self.order = np.argsort(-counts, kind="stable")
        steps = int(counts.max())
        self.even = steps == counts.min()
        self.rows = np.zeros((steps, len(cohort), batch), np.int32)
        self.sizes = np.zeros((steps, len(cohort)), np.int32)
        self.fresh = np.zeros((steps, len(cohort)), np.bool_)
        self.active = np.array([(counts > step).sum() for step in range(steps)], np.int32)
        for place, client in enumerate(self.order):
            self._fill(place, cohort.plans[client], batch)

    def _fill(self, place: int, plan: Sequence[NDArray[np.int32]], batch: int) -> None:
        step = 0
        for epoch in plan:
            steps = -(-len(epoch) // batch)
            padded = np.resize(epoch, steps * batch)  # padded with its own rows, which are real data
            self.rows[step : step + steps, place] = padded.reshape(steps, batch)
            self.sizes[step : step + steps, place] = batch
            self.sizes[step + steps - 1, place] = len(epoch) - (steps - 1) * batch
            self.fresh[step, place] = True
            step += steps


def _with_tail(after: Carried, before: Carried, count: Tensor) -> Any:
    """Return the lists of the clients that took a step, and behind them of those that had finished."""
    return tuple(
        [tf.concat([new, old[count:]], 0) for new, old in zip(news, olds, strict=True)]
        for news, olds in zip(after.lists(), before.lists(), strict=True)
    )


def _repeated(value: Tensor, clients: Tensor) -> Tensor:
    return tf.broadcast_to(value, tf.concat([[clients], value.shape], 0))


def _any_number(shape: Any) -> Any:
    return tf.TensorShape([None, *shape[1:]])


def _aligned(flags: Tensor, value: Tensor) -> Tensor:
    return tf.reshape(flags, [-1, *([1] * (len(value.shape) - 1))])


def _finite(values: list[Tensor]) -> Tensor:
    """Return whether each client's values are all finite, [clients]."""
    return tf.reduce_all(
        [tf.reduce_all(tf.math.is_finite(tf.reshape(each, [tf.shape(each)[0], -1])), axis=1) for each in values], axis=0
    )


def _mean(values: list[Tensor], examples: Tensor, finite: Tensor) -> list[Tensor]:
    """Return the mean over clients weighted by examples, without clients whose values are not finite."""
    weights = tf.where(finite, tf.cast(examples, tf.float64), tf.zeros((), tf.float64))
    weights = weights / tf.maximum(tf.reduce_sum(weights), tf.ones((), tf.float64))
    means = []
    for value in values:
        rows = tf.reshape(value, [tf.shape(value)[0], -1])
        clean = tf.where(finite[:, None], rows, tf.zeros_like(rows))
        mean = tf.linalg.matvec(tf.cast(clean, tf.float64), weights, transpose_a=True)
        means.append(tf.cast(tf.reshape(mean, value.shape[1:]), value.dtype))
    return means
