"""pfl-research with TensorFlow: FederatedAveraging of a Keras 2 model on a SimulatedBackend.

pfl-research keeps variables by name, and Keras 3's names repeat.
"""

import os
import time

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from typing import Any

import keras_models
import numpy as np
import tensorflow as tf
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.hyperparam.base import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.tensorflow import TFModel
from plan import Plan, Report, arguments


class Watch(TrainingProcessCallback):
    """Reports each round, and stops when time is up."""

    def __init__(self, report: Report) -> None:
        self._report, self._last = report, 0.0

    def on_train_begin(self, *, model: Any) -> Metrics:
        self._last = time.perf_counter()
        return Metrics()

    def after_central_iteration(
        self, aggregate_metrics: Any, model: Any, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        now = time.perf_counter()
        self._report.round(now - self._last)
        self._last = now
        return not self._report.go_on(), Metrics()


def main() -> None:
    asked = arguments()
    plan = Plan(asked.plan)
    x, y = plan.scaled()
    net = keras_models.build(tf.keras, asked.model, plan.weights)
    net.compile(tf.keras.optimizers.SGD(asked.learning_rate), "sparse_categorical_crossentropy")
    model = TFModel(net, {}, tf.keras.optimizers.SGD(1.0))
    turns = iter((number, place) for number, cohort in enumerate(plan.cohorts) for place in range(len(cohort)))

    def dataset_of(turn: tuple[int, int]) -> Dataset:
        rows = plan.rows(*turn)
        return Dataset((tf.convert_to_tensor(x[rows]), tf.convert_to_tensor(y[rows])), user_id=str(turn))

    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=asked.rounds,
            evaluation_frequency=asked.rounds + 1,
            train_cohort_size=plan.cohorts.shape[1],
            val_cohort_size=0,
        ),
        SimulatedBackend(FederatedDataset(dataset_of, lambda: next(turns)), None, [WeightByDatapoints()]),
        model,
        NNTrainHyperParams(
            local_batch_size=asked.batch_size, local_num_epochs=1, local_learning_rate=asked.learning_rate
        ),
        NNEvalHyperParams(local_batch_size=None),
        [Watch(report := Report(asked))],
        send_metrics_to_platform=False,
    )
    found = net.predict(plan.x_test.astype(np.float32) / 255, batch_size=1000, verbose=0).argmax(1)
    report.end((found == plan.y_test).mean(), "pfl", "tensorflow", "tf-keras", "numpy")


if __name__ == "__main__":
    main()
