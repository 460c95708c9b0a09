"""Server optimizers: they agree with Flower's where the formulas do, resume to the bit, and leave statistics alone."""

import flwr.serverapp.strategy as flowers
import numpy as np
import pytest

from fl_common.errors import StrategyError
from fl_common.messages.arrays import Signature, decode_record, encode
from strategies.server_optimizer import FedAdagrad, FedAdam, FedAvgM, FedYogi
from tests.support.strategy_messages import begin, reply

ALL = [FedAvgM, FedAdam, FedYogi, FedAdagrad]
MODEL = {"a/kernel": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3), "a.kernel": np.zeros(2, np.float32)}


def means(rounds):
    rng = np.random.default_rng(3)
    return [
        {name: rng.standard_normal(each.shape).astype(np.float32) for name, each in MODEL.items()}
        for _ in range(rounds)
    ]


def run(strategy, model, targets):
    for target in targets:
        model = strategy.step(model, target)
    return model


@pytest.mark.parametrize("kind", ALL)
def test_a_resumed_strategy_ends_in_the_same_bits_as_one_that_was_never_stopped(kind):
    whole = run(kind(), MODEL, means(5))
    first = kind()
    middle = run(first, MODEL, means(5)[:2])
    second = kind()
    second.restore(first.state())
    assert {name: each.tobytes() for name, each in second.state().items()} == {
        name: each.tobytes() for name, each in first.state().items()
    }
    resumed = run(second, middle, means(5)[2:])
    assert all(resumed[name].tobytes() == whole[name].tobytes() for name in MODEL)


def test_the_state_of_another_optimizer_is_refused():
    adam = FedAdam()
    run(adam, MODEL, means(1))
    momentum = FedAvgM()
    momentum.restore(adam.state())
    with pytest.raises(StrategyError, match="not FedAvgM's"):
        momentum.step(MODEL, MODEL)


@pytest.mark.parametrize(("ours", "theirs"), [(FedAdam, flowers.FedAdam), (FedYogi, flowers.FedYogi)])
def test_it_agrees_with_flowers_once_flowers_bias_correction_and_starting_point_are_taken_out(ours, theirs):
    strategy, flower = ours(), theirs(eta=0.1, beta_1=0.9, beta_2=0.99, tau=1e-3)
    flower.v_t = {name: np.full_like(each, 1e-6) for name, each in MODEL.items()}
    mine, others = MODEL, MODEL
    for number, target in enumerate(means(3), start=1):
        mine = strategy.step(mine, target)
        correction = np.sqrt(1 - 0.99 ** (number + 1.0)) / (1 - 0.9 ** (number + 1.0)) if ours is FedAdam else 1
        flower.eta = 0.1 / correction
        flower.current_arrays = others
        record, _ = flower.aggregate_train(number, [reply(target)])
        others = {name: record[name].numpy() for name in MODEL}
        for name in MODEL:
            np.testing.assert_allclose(mine[name], others[name], rtol=1e-5, atol=1e-6)


def test_momentum_agrees_with_flowers():
    strategy, flower = (
        FedAvgM(learning_rate=0.7, momentum=0.6),
        flowers.FedAvgM(server_learning_rate=0.7, server_momentum=0.6),
    )
    mine, others = MODEL, encode(MODEL)
    for number, target in enumerate(means(3), start=1):
        mine = strategy.step(mine, target)
        flower.current_arrays = others
        others, _ = flower.aggregate_train(number, [reply(target)])
        for name in MODEL:
            np.testing.assert_allclose(mine[name], others[name].numpy(), rtol=1e-5, atol=1e-6)


def test_statistics_take_the_mean_and_integers_stay():
    model = MODEL | {"norm/moving_mean": np.zeros(2, np.float32), "seen": np.array(3)}
    strategy = FedAdam()
    strategy.non_trainable = frozenset({"norm/moving_mean", "seen"})
    begin(strategy, model)
    sent = {name: each + np.ones((), each.dtype) for name, each in model.items()}
    record, _ = strategy.aggregate_train(1, [reply(sent)])
    after = decode_record(record, Signature.of(model))
    assert after["norm/moving_mean"].tolist() == [1.0, 1.0]
    assert after["seen"] == 3
    assert not np.allclose(after["a/kernel"], sent["a/kernel"])


def test_a_round_whose_stream_breaks_leaves_the_state_as_it_was():
    def broken():
        yield reply(MODEL)
        raise TimeoutError

    strategy = FedAdam()
    run(strategy, MODEL, means(1))
    before = strategy.state()
    begin(strategy, MODEL)
    with pytest.raises(TimeoutError):
        strategy.aggregate_train(2, broken())
    assert all(np.array_equal(before[name], each) for name, each in strategy.state().items())
