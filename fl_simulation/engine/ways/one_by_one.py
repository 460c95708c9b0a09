"""Clients one after the other through the deployed client's LocalTrainer: for models that train in their own way."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_client.training.trainer import LocalTrainer
from fl_common.messages.arrays import Arrays, is_float
from fl_simulation.engine.data.pool import pick
from fl_simulation.engine.work import Outcome, TrainingCohort
from fl_simulation.engine.workers import Workers


class OneByOne:
    """Trains cohorts with Keras's own `fit` where the model demands it. Takes every model that a client takes."""

    name = "keras"

    def __init__(self, trainer: LocalTrainer, workers: Workers) -> None:
        self._trainer = trainer

    @property
    def traces(self) -> int:
        """Times that a compiled program was traced."""
        return self._trainer.traces

    def train(self, weights: Sequence[Any], cohort: TrainingCohort, data: Any, *, mu: float, mean: bool) -> Outcome:
        """Train as `Way.train` says."""
        before = {name: np.asarray(value) for name, value in zip(self._trainer.names, weights, strict=True)}
        results = []
        for place, client in enumerate(cohort.clients):
            mine = pick(data, np.sort(cohort.plan(place)[0]))
            held = cohort.held(int(client)) if self._trainer.task.callbacks else None
            results.append(
                self._trainer.train(before, mine, round=cohort.round, client=int(client), mu=mu, validation=held)
            )
        finite = np.array([all(np.isfinite(value).all() for value in _floats(each.arrays)) for each in results])
        metrics = {name: np.array([each.metrics[name] for each in results]) for name in results[0].metrics}
        arrays = {name: np.stack([each.arrays[name] for each in results]) for name in before}
        return Outcome(_sums(arrays, cohort.examples, finite) if mean else arrays, metrics, finite)


def _floats(arrays: Arrays) -> list[NDArray[Any]]:
    return [value for value in arrays.values() if is_float(value.dtype)]


def _sums(arrays: Arrays, examples: NDArray[Any], finite: NDArray[np.bool_]) -> Arrays:
    shares = examples[finite].astype(np.float64)
    return {
        name: np.tensordot(shares, value[finite].astype(np.float64), 1)
        for name, value in arrays.items()
        if is_float(value.dtype)
    }
