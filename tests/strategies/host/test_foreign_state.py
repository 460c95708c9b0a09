"""Strategies that are not ours can be resumed as well: their state is found among their attributes."""

import flwr.serverapp.strategy as flowers
import numpy as np
import pytest
from flwr.app import ArrayRecord

from fl_common.errors import StrategyError
from fl_common.messages.arrays import encode
from strategies.host.foreign_state import restore, snapshot
from tests.support.strategy_messages import reply

MODEL = {"w": np.zeros(4, np.float32), "b": np.ones(2, np.float32)}


def rounds(strategy, model, numbers):
    for number in numbers:
        target = {name: np.full_like(each, number) for name, each in MODEL.items()}
        strategy.current_arrays = (
            model if isinstance(strategy, flowers.FedAvgM) else {k: v.numpy() for k, v in model.items()}
        )
        model, _ = strategy.aggregate_train(number, [reply(target)])
    return model


@pytest.mark.parametrize("kind", [flowers.FedAdam, flowers.FedYogi, flowers.FedAdagrad, flowers.FedAvgM])
def test_a_resumed_strategy_of_flowers_ends_in_the_same_bits(kind):
    arguments = {"server_momentum": 0.9} if kind is flowers.FedAvgM else {}
    whole = rounds(kind(**arguments), encode(MODEL), (1, 2, 3, 4))
    first, second = kind(**arguments), kind(**arguments)
    middle = rounds(first, encode(MODEL), (1, 2))
    restore(second, snapshot(first))
    resumed = rounds(second, middle, (3, 4))
    assert all(resumed[name].data == whole[name].data for name in MODEL)


def test_a_wrapped_strategys_state_is_taken_and_everything_is_an_array():
    wrapped = flowers.DifferentialPrivacyServerSideAdaptiveClipping(flowers.FedAdam(), 0.5, 20)
    wrapped.strategy.m_t, wrapped.clipping_norm = {"w": np.ones(2)}, 0.125
    wrapped.current_arrays = encode(MODEL)
    state = snapshot(wrapped)
    assert all(isinstance(each, np.ndarray) and not each.dtype.hasobject for each in state.values())
    fresh = flowers.DifferentialPrivacyServerSideAdaptiveClipping(flowers.FedAdam(), 0.5, 20)
    restore(fresh, state)
    assert fresh.clipping_norm == 0.125
    assert fresh.strategy.m_t["w"].tolist() == [1.0, 1.0]
    assert isinstance(fresh.current_arrays, ArrayRecord)
    assert fresh.current_arrays["b"].numpy().tolist() == [1.0, 1.0]


def test_what_is_no_state_is_left_to_the_constructor():
    strategy = flowers.FedAvg()
    strategy.odd = [np.ones(1), object()]
    strategy.pair = (1, [2.5, None, "x"], np.float32(3))
    fresh = flowers.FedAvg()
    restore(fresh, snapshot(strategy))
    assert not hasattr(fresh, "odd")
    assert fresh.pair == strategy.pair
    assert callable(fresh.train_metrics_aggr_fn)


def test_a_state_of_another_strategy_is_refused():
    with pytest.raises(StrategyError, match="expected the saved state of FedAvg; got FedAdam's"):
        restore(flowers.FedAvg(), snapshot(flowers.FedAdam()))
    with pytest.raises(StrategyError, match="expected the saved state"):
        restore(flowers.FedAvg(), {"m": np.ones(1)})
