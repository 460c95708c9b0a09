"""Models that train through Keras's own fit: custom steps, several optimizers, callbacks, eager ones."""

import numpy as np
import pytest

from fl_common.data.examples import take
from fl_common.errors import TaskError
from fl_common.models.frameworks import keras
from tests.support.small_models import dense, noisy, some_digits, start_of, trainer_of, two_optimizers


def identical(left, right):
    assert list(left) == list(right)
    assert all(np.array_equal(left[name], right[name]) for name in left)


def test_fit_over_the_plan_ends_where_the_compiled_epochs_do():
    data, eager = some_digits(), []

    def watched():
        return [keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: eager.append(epoch))]

    compiled, fitted = trainer_of(noisy, local_epochs=3), trainer_of(noisy, callbacks=watched, local_epochs=3)
    start = start_of(compiled)
    ours, theirs = (trainer.train(start, data, round=2, client=1) for trainer in (compiled, fitted))
    for name in start:
        np.testing.assert_allclose(ours.arrays[name], theirs.arrays[name], atol=1e-6, rtol=0, err_msg=name)
    assert ours.metrics == pytest.approx(theirs.metrics, abs=1e-5)
    assert eager == [3, 4, 5]
    assert compiled.traces == 1
    assert fitted.traces == 0


def test_two_optimizers_built_in_the_first_step_begin_each_round_anew():
    seasoned, fresh, data = trainer_of(two_optimizers), trainer_of(two_optimizers), some_digits()
    start = start_of(fresh)
    for round in range(1, 4):
        seasoned.train(start, take(data, slice(0, 70)), round=round, client=2)
    late, first = (trainer.train(start, data, round=4, client=1) for trainer in (seasoned, fresh))
    identical(late.arrays, first.arrays)
    assert late.metrics == first.metrics
    assert list(late.metrics) == ["seen"]


def test_a_model_with_its_own_steps_is_trained_and_evaluated_by_them():
    trainer, data = trainer_of(two_optimizers, local_epochs=4), some_digits()
    start = start_of(trainer)
    before = trainer.evaluate(start, data).metrics["seen"]
    trained = trainer.train(start, data, round=1, client=0).arrays
    assert trainer.evaluate(trained, data).metrics["seen"] < before


def test_callbacks_are_made_anew_for_each_round_and_what_they_change_does_not_last():
    made = []

    def halving():
        made.append(keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2))
        return made[-1:]

    trainer, data = trainer_of(dense, callbacks=halving), some_digits()
    start = start_of(trainer)
    first, second = (trainer.train(start, data, round=1, client=0).arrays for _ in range(2))
    identical(first, second)
    assert len(made) == 2


def test_no_callbacks_leave_the_compiled_epochs_in_use():
    trainer = trainer_of(dense, callbacks=list)
    trainer.train(start_of(trainer), some_digits(), round=1, client=0)
    assert trainer.traces == 1


def test_keras_traces_a_custom_step_once():
    traced = []

    class Counted(keras.Sequential):
        def train_step(self, data):
            traced.append(1)
            return super().train_step(data)

    def make():
        model = Counted([keras.Input((64,)), keras.layers.Dense(10, "softmax")])
        model.compile(keras.optimizers.Adam(), "sparse_categorical_crossentropy")
        return model

    trainer, data = trainer_of(make), some_digits()
    start = start_of(trainer)
    trainer.train(start, data, round=1, client=0)
    after_one_round = len(traced)
    for round in range(2, 5):
        trainer.train(start, data, round=round, client=0)
    assert len(traced) == after_one_round


def test_an_eager_model_stays_eager_and_its_rounds_do_not_depend_on_earlier_ones():
    trainer, data = (
        trainer_of(lambda: dense(keras.optimizers.Adam(), run_eagerly=True), local_epochs=1),
        some_digits(40),
    )
    start = start_of(trainer)
    first = trainer.train(start, data, round=1, client=0).arrays
    trainer.train(start, data, round=2, client=0)
    identical(trainer.train(start, data, round=1, client=0).arrays, first)
    assert trainer.traces == 0


@pytest.mark.parametrize("trainer", [(two_optimizers, None), (dense, lambda: [keras.callbacks.Callback()])])
def test_the_proximal_term_is_refused_where_it_cannot_be_added(trainer):
    trainer = trainer_of(trainer[0], callbacks=trainer[1])
    with pytest.raises(TaskError, match=r"proximal term needs .* got mu=0\.1"):
        trainer.train(start_of(trainer), some_digits(), round=1, client=0, mu=0.1)
