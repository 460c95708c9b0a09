"""The compiled local epochs against Keras's own fit, and what a round may and may not depend on."""

import numpy as np
import pytest

from fl_common.data.batches import batches, plan, seeds, steps
from fl_common.data.examples import count, take
from fl_common.errors import DataError, TaskError
from fl_common.models.frameworks import keras
from fl_common.models.weights import assign, weights_of
from fl_common.tasks.task import build
from tests.support.small_models import (
    dense,
    jittered,
    noisy,
    regularised,
    some_digits,
    start_of,
    subclassed,
    trainer_of,
    two_by_two,
    two_by_two_digits,
    weighted,
)

optimizers = keras.optimizers


def by_keras(trainer, start, data, *, round, client):
    """What Keras's own fit makes of the same batch plan: (weights, metrics of the last epoch)."""
    settings, model = trainer.settings, build(trainer.task, trainer.settings.seed)
    model(data[0])  # creates the generators of a subclassed model's layers
    assign(model, start)
    states = [variable for variable in model.variables if variable.path.endswith("seed_generator_state")]
    drawn = seeds(2 + len(states), seed=settings.seed, round=round, client=client)[2:]
    for state, seed in zip(states, drawn, strict=True):
        state.assign([seed, 0])
    order = plan(
        count(data), settings.batch_size, settings.local_epochs, seed=settings.seed, round=round, client=client
    )
    chosen = (take(data, batch) for permutation in order for batch in batches(permutation, settings.batch_size))
    each = steps(count(data), settings.batch_size)
    history = model.fit(chosen, steps_per_epoch=each, epochs=settings.local_epochs, verbose=0, shuffle=False)
    return weights_of(model), {name: values[-1] for name, values in history.history.items()}


def close(left, right, tolerance=1e-6):
    assert list(left) == list(right)
    for name in left:
        assert left[name].dtype == right[name].dtype, name
        np.testing.assert_allclose(left[name], right[name], atol=tolerance, rtol=0, err_msg=name)


def identical(left, right):
    assert list(left) == list(right)
    assert all(np.array_equal(left[name], right[name]) for name in left)


decay = {"initial_learning_rate": 0.1, "decay_steps": 3, "decay_rate": 0.5}
CASES = {
    "sgd": (dense, some_digits),
    "adam": (lambda: dense(optimizers.Adam(0.01)), some_digits),
    "momentum": (lambda: dense(optimizers.SGD(0.05, momentum=0.9, nesterov=True)), some_digits),
    "schedule": (lambda: dense(optimizers.SGD(optimizers.schedules.ExponentialDecay(**decay))), some_digits),
    "averaged": (lambda: dense(optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9)), some_digits),
    "accumulated": (lambda: dense(optimizers.Adam(0.01, gradient_accumulation_steps=2)), some_digits),
    "scaled loss": (lambda: dense(optimizers.LossScaleOptimizer(optimizers.SGD(0.1))), some_digits),
    "batchnorm and dropout": (noisy, some_digits),
    "regularised": (regularised, some_digits),
    "two inputs, two outputs": (two_by_two, two_by_two_digits),
    "subclassed": (subclassed, some_digits),
    "sample weights": (lambda: dense(weighted_metrics=["accuracy"]), lambda: weighted(some_digits())),
    "one example": (dense, lambda: some_digits(1)),
}


@pytest.mark.parametrize("case", CASES)
def test_compiled_epochs_end_in_the_weights_and_metrics_of_keras_own_fit(case):
    make, load = CASES[case]
    data = load()
    trainer = trainer_of(make, data, local_epochs=3, learning_rate_schedule="each_round")
    start = start_of(trainer)
    ours = trainer.train(start, data, round=4, client=2)
    weights, metrics = by_keras(trainer, start, data, round=4, client=2)
    close(ours.arrays, weights)
    assert ours.metrics == pytest.approx(metrics, abs=1e-5)
    assert trainer.traces == 1
    assert ours.examples == count(data)


RESTLESS = {
    "dropout": noisy,
    "slots": lambda: dense(optimizers.Adam(0.01)),
    "Keras's global generator": lambda: jittered("keras"),
    "TensorFlow's stateful kernels": lambda: jittered("tf"),
    "a tf.random.Generator": lambda: jittered("generator"),
}


@pytest.mark.parametrize("make", RESTLESS.values(), ids=RESTLESS)
def test_a_round_is_the_same_to_the_bit_whatever_came_before_it(make):
    seasoned, fresh, data = trainer_of(make), trainer_of(make), some_digits()
    start = start_of(fresh)
    moving = start
    for round in range(1, 5):
        moving = seasoned.train(moving, take(data, slice(0, 60)), round=round, client=3).arrays
        seasoned.evaluate(moving, data)
    identical(seasoned.train(start, data, round=5, client=1).arrays, fresh.train(start, data, round=5, client=1).arrays)


def test_an_evaluation_that_draws_random_numbers_does_not_depend_on_what_came_before_it():
    trainer, data = trainer_of(lambda: jittered("keras", always=True)), some_digits()
    start = start_of(trainer)
    losses = {trainer.evaluate(start, data).metrics["loss"] for _ in range(3)}
    trainer.train(start, data, round=1, client=0)
    assert losses == {trainer.evaluate(start, data).metrics["loss"]}


def test_round_and_client_change_the_dropout_of_a_round():
    trainer, data = trainer_of(noisy), some_digits(8)
    start = start_of(trainer)
    rounds = [trainer.train(start, data, round=r, client=c).metrics["loss"] for r, c in ((1, 0), (2, 0), (1, 1))]
    assert len(set(rounds)) == 3


def test_the_global_model_is_left_as_it_was_and_the_update_is_the_callers_own():
    trainer, data = trainer_of(dense), some_digits()
    start = start_of(trainer)
    kept = {name: array.copy() for name, array in start.items()}
    first = trainer.train(start, data, round=1, client=0).arrays
    held = {name: array.copy() for name, array in first.items()}
    trainer.train(start, data, round=2, client=0)
    identical(start, kept)
    identical(first, held)


def test_nothing_is_traced_again_for_other_rounds_clients_sizes_and_terms():
    trainer, data = trainer_of(dense), some_digits()
    start = start_of(trainer)
    for round, size in enumerate((150, 64, 33, 1, 150)):
        trainer.train(start, take(data, slice(0, size)), round=round, client=round)
        trainer.evaluate(start, take(data, slice(0, size)))
    assert trainer.traces == 2
    for mu in (0.1, 0.2, 0.0):
        trainer.train(start, data, round=9, client=1, mu=mu)
    assert trainer.traces == 3


@pytest.mark.parametrize("rate", [0.1, optimizers.schedules.ExponentialDecay(**decay)])
def test_the_learning_rate_setting_overrides_the_compiled_one(rate):
    data = some_digits()
    trainer = trainer_of(lambda: dense(optimizers.SGD(rate)), learning_rate=0.025)
    other = trainer_of(lambda: dense(optimizers.SGD(0.025)))
    start = start_of(trainer)
    close(trainer.train(start, data, round=1, client=0).arrays, other.train(start, data, round=1, client=0).arrays)


def one_weight(optimizer):
    def make():
        layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones", name="only")
        model = keras.Sequential([keras.Input((1,)), layer])
        model.compile(optimizer=optimizer(), loss="mse")
        return model

    return make


def test_the_proximal_gradient_is_that_of_a_hand_worked_weight():
    """One example x=2, y=0, w0=1, rate 0.1, mu 0.5; loss (2w)^2, gradient 8w + 0.5 (w - 1).

    Step 1: 1 - 0.1 * 8 = 0.2. Step 2: 0.2 - 0.1 * (1.6 + 0.5 * (0.2 - 1)) = 0.08. The loss reported is (2 * 0.2)^2.
    """
    data = (np.array([[2.0]], "float32"), np.array([[0.0]], "float32"))
    trainer = trainer_of(one_weight(lambda: optimizers.SGD(0.1)), data, local_epochs=2)
    start = {"only/kernel": np.array([[1.0]], "float32")}
    result = trainer.train(start, data, round=1, client=0, mu=0.5)
    assert result.arrays["only/kernel"][0, 0] == pytest.approx(0.08, abs=1e-6)
    assert result.metrics["loss"] == pytest.approx(0.16, abs=1e-6)
    assert trainer.train(start, data, round=1, client=0).arrays["only/kernel"][0, 0] == pytest.approx(0.04, abs=1e-6)


def test_the_proximal_term_is_scaled_with_the_loss():
    data = (np.array([[2.0]], "float32"), np.array([[0.0]], "float32"))
    scaled = one_weight(lambda: optimizers.SGD(0.1, loss_scale_factor=64.0))
    result = trainer_of(scaled, data).train(
        {"only/kernel": np.ones((1, 1), "float32")}, data, round=1, client=0, mu=0.5
    )
    assert result.arrays["only/kernel"][0, 0] == pytest.approx(0.08, abs=1e-6)


def test_the_proximal_term_reaches_sparse_gradients():
    def make():
        body = [keras.layers.Embedding(4, 2, name="embedding"), keras.layers.GlobalAveragePooling1D()]
        model = keras.Sequential([keras.Input((3,), dtype="int32"), *body, keras.layers.Dense(1)])
        model.compile(optimizer="sgd", loss="mse")
        return model

    data = (np.array([[0, 1, 1], [1, 1, 0]], "int32"), np.ones((2, 1), "float32"))
    trainer = trainer_of(make, data, local_epochs=5)
    start = start_of(trainer)
    free = trainer.train(start, data, round=1, client=0).arrays
    held = trainer.train(start, data, round=1, client=0, mu=5.0).arrays
    assert distance(held, start) < distance(free, start)


def distance(left, right):
    return sum(float(np.sum((left[name] - right[name]) ** 2)) for name in left)


def test_arrays_of_another_model_are_refused_by_name_shape_and_dtype():
    trainer, data = trainer_of(dense), some_digits()
    start = start_of(trainer)
    with pytest.raises(TaskError, match="not this model's: other"):
        trainer.train({**start, "other": np.zeros(1)}, data, round=1, client=0)
    with pytest.raises(TaskError, match=r"shape is \(64, 10\); got \(3,\)"):
        trainer.train(start | {next(iter(start)): np.zeros(3)}, data, round=1, client=0)
    with pytest.raises(TaskError, match="dtype is float32; got float64"):
        trainer.train(start | {next(iter(start)): np.zeros((64, 10))}, data, round=1, client=0)


def test_training_on_nothing_is_an_error():
    trainer = trainer_of(dense)
    with pytest.raises(DataError, match="at least 1 example"):
        trainer.train(start_of(trainer), take(some_digits(), slice(0, 0)), round=1, client=0)
