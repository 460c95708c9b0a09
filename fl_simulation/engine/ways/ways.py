"""The ways of training a cohort, fastest first, and which one is taken: by hand, or by the model and a short trial."""

import time
from collections.abc import Callable, Mapping, Sequence
from logging import getLogger
from typing import Any

import numpy as np

from fl_client.training.trainer import LocalTrainer
from fl_common.data.examples import count
from fl_common.errors import TaskError
from fl_common.models.evaluation import build_metrics
from fl_simulation.engine.ways.choice import raced, refusals
from fl_simulation.engine.ways.compiled_loop import Loop
from fl_simulation.engine.ways.one_by_one import OneByOne
from fl_simulation.engine.ways.padding import PADDED, looks_across
from fl_simulation.engine.ways.vectorized import Vectorized
from fl_simulation.engine.work import Outcome, TrainingCohort, Way
from fl_simulation.engine.workers import Workers

log = getLogger(__name__)

WAYS: dict[str, Callable[[LocalTrainer, Workers], Way]] = {
    Vectorized.name: Vectorized,
    Loop.name: Loop,
    OneByOne.name: OneByOne,
}
TRIAL = 8  # clients of a race


class Choice:
    """Trains by the way that was set by hand; with "auto", by the first that can train the model and does.

    announce: is told each time a way is taken or given up. Raises TaskError where the way set by hand cannot be taken.
    """

    def __init__(
        self,
        trainer: LocalTrainer,
        wanted: str,
        workers: Workers,
        announce: Callable[[Mapping[str, Any]], object],
    ) -> None:
        self._trainer = trainer
        self._workers = workers
        self._wanted = wanted
        self._announce = announce
        self._prepared = False
        self._settled = False
        self._tried = 0  # examples that a padded step was tried on
        self._reasons: dict[str, str] = {}
        self._left: list[str] = []
        self._ways: dict[str, Way] = {}
        self._look()

    @property
    def name(self) -> str:
        """The way that is taken."""
        return self._left[0]

    def prepare(self, data: Any) -> None:
        """Build the model's loss and metrics on the data's shapes, once; only then are all reasons known.

        What looks across the examples of a step is found by trying, again where the trial before had few examples.
        """
        if not self._prepared:
            self._trainer.randomness.begin(round=0, client=0, tensorflow=False)
            build_metrics(self._trainer.model, data)
            self._look()
            self._prepared = True
        if self.name == Vectorized.name and self._tried < min(PADDED, count(data)):
            self._tried = count(data)
            if reason := looks_across(self._trainer, data):
                self._refuse(reason)

    def train(self, weights: Sequence[Any], cohort: TrainingCohort, data: Any, *, mu: float, mean: bool) -> Outcome:
        """Train the cohort as `Way.train` does, settling for a way the first time."""
        self.prepare(data)
        if self._settled:
            return self._way(self.name).train(weights, cohort, data, mu=mu, mean=mean)
        if self._wanted == "auto" and self.name == Vectorized.name and raced(self._trainer.model):
            self._race(weights, cohort, data, mu, mean)
        while True:
            try:
                outcome = self._way(self.name).train(weights, cohort, data, mu=mu, mean=mean)
            except Exception as error:
                if self._wanted != "auto" and not isinstance(error, TaskError):
                    raise TaskError(self._refusal(f"{type(error).__name__}: {error}")) from error
                if self._wanted != "auto" or len(self._left) == 1:
                    raise
                self._give_up(f"its program could not be made: {str(error).splitlines()[0]:.200}")
                continue
            self._settled = True
            self._tell(self._why())
            return outcome

    def _look(self) -> None:
        self._reasons = refusals(self._trainer)
        if self._wanted != "auto":
            if self._wanted in self._reasons:
                raise TaskError(self._refusal(self._reasons[self._wanted]))
            self._left = [self._wanted]
        else:
            self._left = [name for name in WAYS if name not in self._reasons]

    def _refuse(self, reason: str) -> None:
        if self._wanted != "auto":
            raise TaskError(self._refusal(reason))
        self._give_up(reason)
        self._settled = False

    def _refusal(self, reason: str) -> str:
        return f"engine={self._wanted} cannot train this model: {reason}. Set it with --set engine=auto"

    def _way(self, name: str) -> Way:
        if name not in self._ways:
            self._ways[name] = WAYS[name](self._trainer, self._workers)
        return self._ways[name]

    def _race(self, weights: Sequence[Any], cohort: TrainingCohort, data: Any, mu: float, mean: bool) -> None:
        """Keep the faster of the first two ways, by their second run on a few clients."""
        few, seconds = cohort.part(np.arange(min(TRIAL, len(cohort)))), {}
        for name in self._left[:2]:
            try:
                self._way(name).train(weights, few, data, mu=mu, mean=mean)
                started = time.perf_counter()
                self._way(name).train(weights, few, data, mu=mu, mean=mean)
            except Exception as error:  # noqa: BLE001  a program that cannot be made loses the race
                log.info("%s lost the race: %s", name, error)
                continue
            seconds[name] = time.perf_counter() - started
        if len(seconds) == 2 and seconds[self._left[1]] < seconds[self._left[0]]:
            self._give_up(f"one after the other is faster for this model ({_told(seconds)})")

    def _give_up(self, reason: str) -> None:
        log.info("engine %s is given up: %s", self.name, reason)
        self._reasons[self._left.pop(0)] = reason

    def _why(self) -> str:
        if self._wanted != "auto":
            return "set by hand"
        before = [f"not {name}: {self._reasons[name]}" for name in WAYS if name in self._reasons]
        return "; ".join(before) or "every layer treats each example alone"

    def _tell(self, reason: str) -> None:
        log.info("engine %s: %s", self.name, reason)
        self._announce({"event": "engine", "engine": self.name, "reason": reason})


def _told(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {1000 * each:.0f} ms" for name, each in seconds.items())
