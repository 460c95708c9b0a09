"""What looks across the examples of a step is found by trying a padded one, and is trained another way."""

import re
from pathlib import Path

import numpy as np
import pytest

from fl_common.errors import TaskError
from fl_common.models.evaluation import build_metrics
from fl_common.models.frameworks import keras, tf
from fl_common.models.weights import weights_of
from fl_simulation.engine.engine import BatchedEngine
from fl_simulation.engine.ways.one_by_one import OneByOne
from fl_simulation.engine.ways.padding import looks_across
from fl_simulation.engine.ways.ways import Choice
from fl_simulation.engine.work import TrainingCohort
from fl_simulation.engine.workers import Workers
from tests.support.simulated_federation import settings_of, simulated
from tests.support.small_models import compiled, dense, some_digits, trainer_of, weighted

layers, ops = keras.layers, keras.ops


def root(y_true, y_pred):
    return ops.sqrt(ops.mean(ops.square(ops.one_hot(y_true, 10) - y_pred)) + 1e-6)


def contrast(y_true, y_pred):
    """A value for each example, which depends on the others."""
    return ops.sum(ops.square(ops.one_hot(y_true, 10) - y_pred + ops.mean(y_pred, axis=0)), axis=-1)


def hardest(y_true, y_pred):
    each = keras.losses.sparse_categorical_crossentropy(y_true, y_pred)
    return ops.mean(ops.top_k(each, 2)[0])


class Dice(keras.losses.Loss):
    def call(self, y_true, y_pred):
        y_true = ops.one_hot(y_true, 10)
        return 1 - 2 * ops.sum(y_true * y_pred) / (ops.sum(y_true) + ops.sum(y_pred))


def of(*body, **options):
    return compiled(keras.Sequential([keras.Input((64,)), *body, layers.Dense(10, "softmax")]), **options)


def centred():
    inputs = keras.Input((64,))
    hidden = layers.Dense(8)(inputs)
    return compiled(keras.Model(inputs, layers.Dense(10, "softmax")(hidden - ops.mean(hidden, axis=0))))


COUPLED = {
    "a loss of one value": (lambda: dense(loss=root), "loss"),
    "a Loss of one value": (lambda: dense(loss=Dice()), "loss"),
    "a loss with the others in it": (lambda: dense(loss=contrast), "loss"),
    "a loss of the hardest": (lambda: dense(loss=hardest), "loss"),
    "a metric of one value": (lambda: dense(metrics=[root]), "metric"),
    "a metric with the others in it": (lambda: dense(metrics=[contrast]), "metric"),
    "an operation between layers": (centred, "layer"),
    "an activation": (lambda: of(layers.Dense(8, lambda x: x - ops.mean(x, axis=0))), "layer"),
    "a softmax over the batch": (lambda: of(layers.Softmax(axis=0)), "layer"),
}
ALONE = {
    "dense": dense,
    "random layers": lambda: of(layers.Dropout(0.3), layers.GaussianNoise(0.1), layers.Dense(8, "relu")),
    "a sum": lambda: dense(loss=keras.losses.SparseCategoricalCrossentropy(reduction="sum")),
    "metrics": lambda: dense(metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(3)]),
    "regularised weights": lambda: of(layers.Dense(8, kernel_regularizer="l2")),
    "adam": lambda: dense("adam"),
}


def built(make, data):
    trainer = trainer_of(make)
    build_metrics(trainer.model, data)
    return trainer


@pytest.mark.parametrize("case", COUPLED)
def test_what_looks_across_a_step_is_named(case):
    make, word = COUPLED[case]
    data = tuple(map(tf.constant, some_digits()))
    assert re.match(
        rf"(a|the) {word} .*(looks across the examples|does not take a weight)", looks_across(built(make, data), data)
    )


@pytest.mark.parametrize("case", ALONE)
def test_what_treats_each_example_alone_stays_vectorised(case):
    data = tuple(map(tf.constant, weighted(some_digits(40)) if case == "dense" else some_digits()))
    assert looks_across(built(ALONE[case], data), data) == ""


def test_a_loss_over_the_batch_ends_in_the_weights_of_the_deployed_client():
    sizes = (40, 5, 33)
    rows = [np.arange(start, start + size, dtype=np.int32) for start, size in zip((0, 40, 45), sizes, strict=True)]
    cohort = TrainingCohort.of(3, [7, 2, 9], rows, batch_size=32, epochs=2, seed=5)
    trainer, data, told = trainer_of(lambda: dense(loss=Dice())), tuple(map(tf.constant, some_digits())), []
    weights, workers = list(weights_of(trainer.model).values()), Workers(1)
    ours = Choice(trainer, "auto", workers, told.append).train(weights, cohort, data, mu=0.0, mean=False)
    theirs = OneByOne(trainer, workers).train(weights, cohort, data, mu=0.0, mean=False)
    for name in theirs.arrays:
        np.testing.assert_allclose(ours.arrays[name], theirs.arrays[name], rtol=0, atol=1e-6)
    assert [event["engine"] for event in told] == ["loop"]
    assert "the loss (dice) looks across the examples" in told[0]["reason"]


ROOTED = """
import keras, numpy as np

def root(y_true, y_pred):
    return keras.ops.sqrt(keras.ops.mean(keras.ops.square(y_true - y_pred)))

def build_model():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), root)
    return model

def load_partition(partition, partitions):
    rng = np.random.default_rng(partition)
    x = rng.normal(size=(1 if partition == 0 else 9, 3)).astype("float32")
    return (x, x.sum(1, keepdims=True)), None

def load_test():
    x = np.random.default_rng(99).normal(size=(700, 3)).astype("float32")
    return x, x.sum(1, keepdims=True)
"""


def test_it_is_found_when_the_first_client_has_one_example_and_the_test_set_is_measured_as_deployed(tmp_path: Path):
    task = tmp_path / "rooted.py"
    task.write_text(ROOTED)
    with pytest.raises(TaskError, match=r"engine=vectorized cannot .*the loss \(root\) looks across.*engine=auto"):
        simulated(tmp_path / "set", settings_of(3, task=str(task), engine="vectorized"))
    settings = settings_of(3, task=str(task), rounds=1, batch_size=4)
    engine = BatchedEngine(settings)
    engine.check(3)
    arrays = weights_of(engine.trainer.model)
    measured, deployed = engine.test(), engine.task.load_test()
    assert measured is not None
    assert measured(arrays)["loss"] == pytest.approx(engine.trainer.evaluate(arrays, deployed).metrics["loss"], 1e-6)
