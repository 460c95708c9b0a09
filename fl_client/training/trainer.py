"""Local training: one definition of a client's part in a round. Between a client's data and its reply."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from fl_client.training.compiled import Epochs
from fl_client.training.keras_fit import Fit
from fl_client.training.optimizer_state import Slots
from fl_client.training.randomness import Randomness
from fl_common.data.batches import plan, steps
from fl_common.data.examples import Examples, count
from fl_common.errors import Shown, TaskError
from fl_common.messages.arrays import Arrays, Signature
from fl_common.models.evaluation import Evaluator
from fl_common.models.frameworks import keras
from fl_common.models.tensors import Tensors, as_metrics, in_order, overrides
from fl_common.models.weights import names_of, weights_of
from fl_common.settings.schema import Settings
from fl_common.tasks.task import Task, build

# A model that overrides one of these trains through Keras's own fit.
TRAINING = ("train_step", "compute_metrics", "fit", "make_train_function")


@dataclass(frozen=True)
class TrainResult:
    """A client's update: its weights after local training, by name, and the metrics of the last local epoch."""

    arrays: Arrays
    examples: int
    metrics: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class EvaluateResult:
    """A client's evaluation of a model. Without examples there are no metrics."""

    examples: int
    metrics: dict[str, float]
    seconds: float


class LocalTrainer:
    """A task's model, built and traced once for the life of a process.

    What a round ends in depends on the global model, the data, the settings, the round and the client, and on nothing
    that happened before: optimizers and random generators begin each round anew.
    """

    def __init__(self, task: Task, settings: Settings, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self.task = task
        self.model: keras.Model = build(task, settings.seed)
        self.signature = Signature.of(weights_of(self.model))
        self._callbacks = task.callbacks or list
        self.settings = settings
        self._clock = clock
        self.names = names_of(self.model)
        self._tensors = Tensors()
        self._held = Tensors()
        self.slots = Slots(self.model, settings.learning_rate)
        self.randomness = Randomness(self.model, settings.seed)
        self.epochs = Epochs(self.model, self.slots, self.randomness)
        self._fit = Fit(self.model, self.slots, self.randomness)
        self._evaluator = Evaluator(self.model)
        self.plain = not self.model.run_eagerly and not overrides(self.model, *TRAINING)

    @property
    def traces(self) -> int:
        """Times that a compiled program was traced. It stays the same from round to round."""
        return self.epochs.traces + self._evaluator.traces

    def before(self, round: int) -> int:
        """Return the number of rounds before this one, as schedules of the learning rate count them."""
        return max(0, round - 1) if self.settings.learning_rate_schedule == "over_rounds" else 0

    def train(
        self,
        arrays: Mapping[str, NDArray[Any]],
        data: Examples,
        *,
        round: int,
        client: int,
        mu: float = 0.0,
        validation: Examples | None = None,
    ) -> TrainResult:
        """Train `arrays` on `data` for the settings' local epochs and return the update.

        mu: weight of FedProx's proximal term. validation: what callbacks see as val_ metrics. Raises TaskError where
        `arrays` are not this model's, or where mu > 0 meets a model with its own train_step or callbacks; DataError
        without examples.
        """
        began = self._clock()
        settings, moment = self.settings, {"round": round, "client": client}
        weights = in_order(arrays, self.names, self.model)
        order = plan(count(data), settings.batch_size, settings.local_epochs, seed=settings.seed, **moment)
        tensors = self._tensors.of(data)
        callbacks = self._callbacks()
        if self.plain and not callbacks:
            earlier = self.before(round) * settings.local_epochs * steps(count(data), settings.batch_size)
            trained, metrics = self.epochs.run(
                weights, order, tensors, settings.batch_size, mu=mu, earlier=earlier, **moment
            )
        else:
            self._refuse(mu)
            held = self._held.of(validation) if validation is not None and count(validation) else None
            trained, metrics = self._fit.run(
                weights,
                order,
                tensors,
                settings.batch_size,
                callbacks,
                before=self.before(round),
                validation=held,
                **moment,
            )
        update = dict(zip(self.names, trained, strict=True))
        return TrainResult(update, count(data), as_metrics(metrics), self._clock() - began)

    def evaluate(self, arrays: Mapping[str, NDArray[Any]], data: Examples) -> EvaluateResult:
        """Evaluate `arrays` on `data`; what a model draws at random is the same each time.

        Raises TaskError where `arrays` are not this model's.
        """
        began = self._clock()
        self.randomness.begin(round=0, client=0, tensorflow=False)
        self.randomness.assign(round=0, client=0)
        metrics = self._evaluator.evaluate(arrays, data)
        return EvaluateResult(count(data), metrics, self._clock() - began)

    def _refuse(self, mu: float) -> None:
        if mu:
            raise TaskError(
                "the proximal term needs a model that trains with Keras's own train_step, without callbacks; "
                "got mu={mu} and one that does not. Add the term in the train_step and set mu=0.",
                mu=Shown(mu),
            )
