"""The ways of training a cohort agree on models of every kind that they take, and say why they take no others."""

import numpy as np
import pytest

from fl_common.models.frameworks import keras, tf
from fl_common.models.weights import weights_of
from fl_simulation.engine.ways.choice import raced, refusals
from fl_simulation.engine.ways.compiled_loop import Loop
from fl_simulation.engine.ways.one_by_one import OneByOne
from fl_simulation.engine.ways.vectorized import Vectorized
from fl_simulation.engine.ways.ways import Choice
from fl_simulation.engine.work import TrainingCohort
from fl_simulation.engine.workers import Workers
from tests.support.small_models import (
    compiled,
    dense,
    noisy,
    regularised,
    some_digits,
    subclassed,
    trainer_of,
    two_by_two,
)

pytestmark = pytest.mark.slow  # every kind of model is traced by every way: minutes

layers = keras.layers
SIZES = (40, 5, 1, 33, 64)
WORKERS = Workers(2)


def sequential(*body, optimizer=None, **options):
    model = keras.Sequential([keras.Input((64,)), *body, layers.Dense(10, "softmax")])
    return compiled(model, optimizer, **options)


def scheduled():
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 3, 0.7)
    return dense(keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=1e-3, clipnorm=1.0))


def dropped():
    return sequential(layers.Dense(12, "relu"), layers.Dropout(0.3), layers.GaussianNoise(0.1), optimizer="adam")


def normalised_layers():
    return sequential(layers.Dense(12, "relu", kernel_regularizer="l2"), layers.LayerNormalization())


def summed():
    return dense(loss=keras.losses.SparseCategoricalCrossentropy(reduction="sum"), optimizer=keras.optimizers.SGD(0.01))


def attentive():
    inputs = keras.Input((64,))
    rows = layers.Reshape((8, 8))(inputs)
    flat = layers.Flatten()(layers.MultiHeadAttention(2, 4)(rows, rows))
    return compiled(keras.Model(inputs, layers.Dense(10, "softmax")(flat)))


def recurrent():
    return sequential(layers.Reshape((8, 8)), layers.SimpleRNN(6))


def cohort(epochs: int = 2) -> TrainingCohort:
    starts = np.cumsum((0, *SIZES))
    rows = [np.arange(start, start + size, dtype=np.int32) for start, size in zip(starts, SIZES, strict=False)]
    return TrainingCohort.of(3, [7, 2, 9, 4, 0], rows, batch_size=32, epochs=epochs, seed=5)


def data(weighted: bool = False):
    x, y = some_digits()
    weights = np.random.default_rng(1).uniform(0.2, 2, len(y)).astype("float32")
    return tuple(tf.constant(each) for each in ((x, y, weights) if weighted else (x, y)))


def agree(one, other) -> None:
    for name in other.arrays:
        np.testing.assert_allclose(one.arrays[name], other.arrays[name], rtol=0, atol=1e-5, err_msg=name)
    assert one.metrics.keys() == other.metrics.keys()
    for name in other.metrics:
        np.testing.assert_allclose(one.metrics[name], other.metrics[name], rtol=1e-4, atol=1e-5, err_msg=name)
    np.testing.assert_array_equal(one.finite, other.finite)


@pytest.mark.parametrize(
    "build",
    [dense, scheduled, dropped, normalised_layers, summed, attentive, recurrent],
    ids=lambda each: each.__name__,
)
def test_all_at_once_is_one_after_the_other(build):
    trainer = trainer_of(build)
    weights = list(weights_of(trainer.model).values())
    truth = OneByOne(trainer, WORKERS).train(weights, cohort(), data(), mu=0.0, mean=False)
    for way in (Vectorized(trainer, WORKERS), Loop(trainer, WORKERS)):
        agree(way.train(weights, cohort(), data(), mu=0.0, mean=False), truth)


@pytest.mark.parametrize("build", [noisy, regularised, subclassed], ids=lambda each: each.__name__)
def test_workers_share_no_state_whatever_the_layers_keep(build):
    """BatchNorm's statistics, seeds, optimizer and metrics: each worker has its own."""
    trainer = trainer_of(build)
    weights = list(weights_of(trainer.model).values())
    truth = OneByOne(trainer, WORKERS).train(weights, cohort(), data(), mu=0.0, mean=False)
    loop = Loop(trainer, WORKERS)
    for _ in range(2):
        agree(loop.train(weights, cohort(), data(), mu=0.0, mean=False), truth)


@pytest.mark.parametrize(("mu", "weighted", "mean"), [(0.5, False, False), (0.0, True, False), (0.5, True, True)])
def test_the_proximal_term_sample_weights_and_the_mean(mu, weighted, mean):
    trainer = trainer_of(dense)
    weights = list(weights_of(trainer.model).values())
    truth = OneByOne(trainer, WORKERS).train(weights, cohort(), data(weighted), mu=mu, mean=mean)
    for way in (Vectorized(trainer, WORKERS), Loop(trainer, WORKERS)):
        agree(way.train(weights, cohort(), data(weighted), mu=mu, mean=mean), truth)


@pytest.mark.parametrize("build", [noisy, regularised, subclassed, two_by_two], ids=lambda each: each.__name__)
def test_what_is_not_vectorised_is_told_and_the_loop_takes_it(build):
    trainer = trainer_of(build, *([two_by_two_digits_of()] if build is two_by_two else []))
    refused = refusals(trainer)
    assert refused.keys() == {"vectorized"}
    words = {
        "noisy": "BatchNormalization",
        "regularised": "activity_regularizer",
        "subclassed": "(Subclassed)",
        "two_by_two": "several outputs",
    }
    assert words[build.__name__] in refused["vectorized"]


def two_by_two_digits_of():
    from tests.support.small_models import two_by_two_digits

    return two_by_two_digits()


def test_several_inputs_and_outputs_train_in_the_loop():
    examples = two_by_two_digits_of()
    trainer = trainer_of(two_by_two, examples)
    weights = list(weights_of(trainer.model).values())
    tensors = tf.nest.map_structure(tf.constant, examples)
    truth = OneByOne(trainer, WORKERS).train(weights, cohort(), tensors, mu=0.0, mean=False)
    agree(Loop(trainer, WORKERS).train(weights, cohort(), tensors, mu=0.0, mean=False), truth)


def test_callbacks_and_eager_models_go_through_keras():
    assert refusals(trainer_of(dense, callbacks=lambda: [keras.callbacks.Callback()])).keys() == {"vectorized", "loop"}
    assert refusals(trainer_of(lambda: dense(run_eagerly=True))).keys() == {"vectorized", "loop"}
    assert "metric" in refusals(trainer_of(lambda: dense(metrics=[Fraction()])))["vectorized"]


class Fraction(keras.metrics.Metric):
    """A metric of a user's own, that knows no weights."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        pass

    def result(self):
        return 0.0


def test_one_program_serves_every_cohort():
    trainer = trainer_of(dense)
    weights = list(weights_of(trainer.model).values())
    for way in (Vectorized(trainer, WORKERS), Loop(trainer, WORKERS)):
        way.train(weights, cohort(), data(), mu=0.0, mean=True)
        traces = way.traces
        for size in (2, 3, 4):
            way.train(weights, cohort(epochs=3).part(np.arange(size)), data(), mu=0.0, mean=True)
        assert way.traces == traces


def test_models_with_recurrence_or_attention_are_raced_and_the_result_told():
    trainer = trainer_of(attentive)
    told = []
    assert raced(trainer.model)
    assert not raced(trainer_of(dense).model)
    choice = Choice(trainer, "auto", WORKERS, told.append)
    weights = list(weights_of(trainer.model).values())
    outcome = choice.train(weights, cohort(), data(), mu=0.0, mean=True)
    agree(outcome, OneByOne(trainer, WORKERS).train(weights, cohort(), data(), mu=0.0, mean=True))
    assert [event["engine"] for event in told] == [choice.name]
