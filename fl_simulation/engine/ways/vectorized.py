"""The cohort as one program: every local step is taken for all of a worker's clients at once, by tf.vectorized_map.

Clients of like size are trained together; each group is divided over the workers.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_client.training.trainer import LocalTrainer
from fl_common.messages.arrays import Arrays
from fl_common.models.evaluation import build_metrics
from fl_common.models.frameworks import tf
from fl_common.models.tensors import specs
from fl_simulation.engine.parts import groups, shares
from fl_simulation.engine.program import Program
from fl_simulation.engine.ways.functional import Carried, Functional
from fl_simulation.engine.ways.missing_ops import register
from fl_simulation.engine.ways.stepping import Stepping
from fl_simulation.engine.ways.steps import Steps
from fl_simulation.engine.work import Outcome, Places, TrainingCohort
from fl_simulation.engine.workers import Workers

Tensor = Any
Shape = tuple[int, int] | None

OWN_PROGRAMS = 2
FEW = 4  # clients that are not worth dividing


class Vectorized:
    """Trains cohorts of one model. One trace serves every round, cohort and size; FedProx has one of its own."""

    name = "vectorized"

    def __init__(self, trainer: LocalTrainer, workers: Workers) -> None:
        register()
        self.traces = 0
        self._model = trainer.model
        self._before = trainer.before
        self._slots = trainer.slots
        self._randomness = trainer.randomness
        self._names = trainer.names
        self._workers = workers
        self._functional: Functional | None = None
        self._programs: dict[tuple[bool, bool, Shape], Program] = {}
        self._shapes: set[tuple[int, int]] = set()

    def train(self, weights: Sequence[Any], cohort: TrainingCohort, data: Any, *, mu: float, mean: bool) -> Outcome:
        """Train as `Way.train` says."""
        weights = [tf.convert_to_tensor(each) for each in weights]
        parts = self._parts(cohort)
        steps = [Steps(cohort.part(places)) for places in parts]
        programs = [self._program(data, proximal=mu > 0, mean=mean, shape=self._shape(each)) for each in steps]

        def one(worker: int, part: int) -> tuple[Places, Outcome]:
            places = parts[part]
            outcome = self._part(programs[part], weights, cohort.part(places), steps[part], data, mu, mean)
            return places, outcome

        return Outcome.of_parts(self._workers.map(one, range(len(parts))), mean=mean)

    def _parts(self, cohort: TrainingCohort) -> list[Places]:
        found = []
        for group in groups(cohort.steps):
            parts = shares(cohort.steps[group], max(1, min(self._workers.count, len(group) // FEW)))
            found += [group[places] for places in parts]
        return found

    def _part(
        self,
        program: Program,
        weights: Sequence[Tensor],
        cohort: TrainingCohort,
        steps: Steps,
        data: Any,
        mu: float,
        mean: bool,
    ) -> Outcome:
        trained, metrics, finite = program(
            weights,
            self._seeds(cohort)[steps.order],
            steps.rows,
            steps.sizes,
            steps.fresh,
            steps.active,
            cohort.examples[steps.order].astype(np.float64),
            self._before(cohort.round) * cohort.steps[steps.order],
            mu,
            data,
        )
        back = np.argsort(steps.order)
        return Outcome(
            self._arrays(trained, None if mean else back, weights),
            {name: value.numpy()[back] for name, value in metrics.items()},
            finite.numpy()[back],
        )

    def _arrays(self, trained: Sequence[Tensor], back: NDArray[np.intp] | None, weights: Sequence[Tensor]) -> Arrays:
        """Return what was trained by name; and, client by client, also what no layer that this way takes changes."""
        places = {id(each): place for place, each in enumerate(self._model.trainable_variables)}
        arrays: Arrays = {}
        for name, variable, before in zip(self._names, self._model.weights, weights, strict=True):
            if id(variable) in places:
                value = trained[places[id(variable)]].numpy()
                arrays[name] = value if back is None else value[back]
            elif back is not None:
                arrays[name] = np.broadcast_to(before.numpy(), (len(back), *before.shape))
        return arrays

    def _seeds(self, cohort: TrainingCohort) -> NDArray[np.int64]:
        """Return the state of each client's random generators at the start of the round, [clients, generators, 2]."""
        states = len(self._functional.seeds) if self._functional else 0
        if not states:
            return np.zeros((len(cohort), 0, 2), np.int64)
        return self._randomness.values_of(states + 1, cohort.clients, round=cohort.round)[:, 1:]

    def _shape(self, steps: Steps) -> Shape:
        """Return the numbers of clients and of examples in a step for a program of their own, while these are few.

        A program that knows them has half the operations. None: any.
        """
        shape = (steps.rows.shape[1], steps.rows.shape[2])
        if not steps.even or (shape not in self._shapes and len(self._shapes) >= OWN_PROGRAMS):
            return None
        self._shapes.add(shape)
        return shape

    def _program(self, data: Any, *, proximal: bool, mean: bool, shape: Shape) -> Program:
        key = (proximal, mean, shape)
        if key not in self._programs:
            self._randomness.install()
            build_metrics(self._model, data)
            self._functional = self._functional or Functional(
                self._model, self._randomness.states()[1:], self._slots.earlier
            )
            with without_tracebacks():
                self._programs[key] = self._traced(self._functional, data, proximal, mean, shape)
        return self._programs[key]

    def _traced(self, functional: Functional, data: Any, proximal: bool, mean: bool, shape: Shape) -> Program:
        def train(
            weights: list[Tensor],
            seeds: Tensor,
            rows: Tensor,
            sizes: Tensor,
            fresh: Tensor,
            active: Tensor,
            examples: Tensor,
            earlier: Tensor,
            mu: Tensor,
            data: Any,
        ) -> Any:
            self.traces += 1
            values = dict(zip(map(id, self._model.weights), weights, strict=True))
            anchors = [values[id(each)] for each in functional.trainable]
            fixed = [values[id(each)] for each in functional.fixed]
            stepping = Stepping(functional, fixed, anchors if proximal else None, mu, data)
            carried = self._begin(functional, anchors, seeds, earlier)
            carried = stepping.run(carried, self._common(functional), rows, sizes, fresh, active)
            metrics = tf.vectorized_map(functional.results, carried.metrics, warn=False)
            finite = _finite(carried.trainable)
            trained = _sums(carried.trainable, examples, finite) if mean else carried.trainable
            return trained, metrics, finite

        clients, batch = shape or (None, None)
        return Program(
            train,
            (
                [tf.TensorSpec(weight.shape, weight.dtype) for weight in self._model.weights],
                tf.TensorSpec((clients, len(functional.seeds), 2), tf.int64),
                tf.TensorSpec((None, clients, batch), tf.int32),
                tf.TensorSpec((None, clients), tf.int32),
                tf.TensorSpec((None, clients), tf.bool),
                tf.TensorSpec((None,), tf.int32),
                tf.TensorSpec((clients,), tf.float64),
                tf.TensorSpec((clients,), tf.int64),
                tf.TensorSpec((), tf.float32),
                specs(data),
            ),
        )

    def _begin(self, functional: Functional, trainable: list[Tensor], seeds: Tensor, earlier: Tensor) -> Carried:
        clients = seeds.shape[0] or tf.shape(seeds)[0]
        slots = [tf.constant(self._slots.initial(each)) for each in functional.slots[:-1]]
        metrics = [tf.zeros(each.shape, each.dtype) for each in functional.metrics]
        return Carried(
            [_repeated(value, clients) for value in trainable],
            [*(_repeated(value, clients) for value in slots), earlier],
            tf.unstack(seeds, axis=1),
            [_repeated(value, clients) for value in metrics],
        )

    def _common(self, functional: Functional) -> list[Tensor]:
        return [tf.constant(self._slots.initial(each)) for each in functional.common]


@contextmanager
def without_tracebacks() -> Iterator[None]:
    """Keep TensorFlow's vectoriser from logging the stacks of what it cannot convert: the error says it, and is told.

    Another way trains the model then.
    """
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _repeated(value: Tensor, clients: Tensor) -> Tensor:
    return tf.broadcast_to(value, tf.concat([[clients], value.shape], 0))


def _finite(values: list[Tensor]) -> Tensor:
    """Return whether each client's values are all finite, [clients]."""
    return tf.reduce_all(
        [tf.reduce_all(tf.math.is_finite(tf.reshape(each, [tf.shape(each)[0], -1])), axis=1) for each in values], axis=0
    )


def _sums(values: list[Tensor], examples: Tensor, finite: Tensor) -> list[Tensor]:
    """Return the float64 sums over clients, weighted by examples, without clients whose values are not finite."""
    weights = tf.where(finite, examples, tf.zeros_like(examples))
    sums = []
    for value in values:
        rows = tf.reshape(value, [tf.shape(value)[0], -1])
        clean = tf.where(finite[:, None], rows, tf.zeros_like(rows))
        total = tf.linalg.matvec(tf.cast(clean, tf.float64), weights, transpose_a=True)
        sums.append(tf.reshape(total, value.shape[1:]))
    return sums
