"""Learning-rate schedules over rounds, and validation data for callbacks."""

import numpy as np
import pytest

from fl_common.data.batches import batches, plan
from fl_common.data.examples import count, take
from fl_common.models.frameworks import keras, tf
from fl_common.models.weights import assign, weights_of
from fl_common.tasks.task import build
from tests.support.small_models import dense, some_digits, start_of, trainer_of, two_optimizers

optimizers = keras.optimizers
DECAY = {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.5}
KINDS = {
    "sgd": lambda rate: optimizers.SGD(rate, momentum=0.9),
    "adam": lambda rate: optimizers.Adam(rate),
    "scaled": lambda rate: optimizers.LossScaleOptimizer(optimizers.SGD(rate)),
}


def by_hand(trainer, start, data, *, round, client, rates):
    """The weights after the round's plan when each step has the rate that is given."""
    settings, model = trainer.settings, build(trainer.task, trainer.settings.seed)
    assign(model, start)
    moment = {"seed": settings.seed, "round": round, "client": client}
    order = plan(count(data), settings.batch_size, settings.local_epochs, **moment)
    chosen = [take(data, batch) for permutation in order for batch in batches(permutation, settings.batch_size)]
    for rate, (x, y) in zip(rates, chosen, strict=True):
        getattr(model.optimizer, "inner_optimizer", model.optimizer)._learning_rate = rate
        model.train_step((tf.constant(x), tf.constant(y)))
    return weights_of(model)


@pytest.mark.parametrize(
    ("kind", "setting", "rounds"),
    [("adam", "over_rounds", 3), ("scaled", "over_rounds", 3), ("sgd", "each_round", 0)],
)
def test_a_schedule_goes_on_over_rounds_and_nothing_else_does(kind, setting, rounds):
    """Round 4 of a client with 70 examples: 2 epochs of 3 steps a round, so 18 steps have gone before."""
    schedule = optimizers.schedules.ExponentialDecay(**DECAY)
    data = some_digits(70)
    trainer = trainer_of(lambda: dense(KINDS[kind](schedule)), data, learning_rate_schedule=setting)
    start = start_of(trainer)
    rates = [float(schedule(6 * rounds + step)) for step in range(6)]
    for _ in range(2):
        ours = trainer.train(start, data, round=4, client=2).arrays
    theirs = by_hand(trainer, start, data, round=4, client=2, rates=rates)
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-6, rtol=0, err_msg=name)
    assert trainer.traces == 1


def test_every_optimizer_of_a_custom_step_follows_its_schedule_over_rounds():
    def make():
        model = two_optimizers()
        model.compile(
            optimizers.SGD(optimizers.schedules.PiecewiseConstantDecay([17], [0.1, 0.0])), optimizers.SGD(0.0)
        )
        return model

    trainer, data = trainer_of(make), some_digits(70)
    start = start_of(trainer)
    assert moved(trainer.train(start, data, round=3, client=0).arrays, start)
    assert not moved(trainer.train(start, data, round=4, client=0).arrays, start)


def moved(arrays, start):
    return any((arrays[name] != start[name]).any() for name in start)


class Seen(keras.callbacks.Callback):
    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append((epoch, dict(logs or {})))


@pytest.mark.parametrize(("setting", "epochs"), [("over_rounds", [2, 3]), ("each_round", [0, 1])])
def test_callbacks_see_validation_data_and_the_epochs_over_rounds(setting, epochs):
    seen, data, held = [], some_digits(70), take(some_digits(), slice(70, 100))
    trainer = trainer_of(dense, data, callbacks=lambda: [Seen(seen)], learning_rate_schedule=setting)
    start = start_of(trainer)
    result = trainer.train(start, data, round=2, client=0, validation=held)
    assert [epoch for epoch, _ in seen] == epochs
    assert seen[-1][1]["val_loss"] == pytest.approx(trainer.evaluate(result.arrays, held).metrics["loss"], abs=1e-5)
    assert result.metrics.keys() == {"loss", "accuracy"}


def test_early_stopping_on_validation_data_restores_the_best_epoch():
    seen = []

    def stopping():
        return [keras.callbacks.EarlyStopping("val_loss", patience=1, restore_best_weights=True), Seen(seen)]

    data = some_digits(70)
    held = (data[0], (data[1] + 1) % 10)  # the better the training, the worse
    trainer = trainer_of(dense, data, callbacks=stopping, local_epochs=12, learning_rate=1.0)
    result = trainer.train(start_of(trainer), data, round=1, client=0, validation=held)
    losses = [logs["val_loss"] for _, logs in seen]
    assert len(losses) < 12
    assert min(losses) < losses[-1]
    assert trainer.evaluate(result.arrays, held).metrics["loss"] == pytest.approx(min(losses), abs=1e-5)
