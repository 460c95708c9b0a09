"""FedAvg over real messages: whom it asks, what it folds, and that a bad reply changes nothing."""

import gc
import weakref

import numpy as np
import pytest
from flwr.app import ConfigRecord, MessageType
from flwr.serverapp.strategy import FedAvg as FlowersFedAvg

from fl_common.errors import StrategyError
from fl_common.messages.arrays import encode
from strategies.fedavg import FedAvg
from strategies.fedprox import FedProx
from tests.support.strategy_messages import begin, failed, reply

MODEL = {"w": np.zeros(3, np.float32), "seen": np.array(4, np.int64)}


def update(value):
    return MODEL | {"w": np.full(3, value, np.float32)}


def asked(messages):
    return [message.metadata.dst_node_id for message in messages]


def test_the_mean_is_weighted_by_examples_and_integers_are_kept():
    strategy = FedAvg()
    begin(strategy, MODEL)
    arrays, metrics = strategy.aggregate_train(
        1, iter([reply(update(1.0), 1, loss=1.0), reply(update(5.0), 3, loss=3.0)])
    )
    assert arrays["w"].numpy().tolist() == [4.0, 4.0, 4.0]
    assert arrays["w"].numpy().dtype == np.float32
    assert arrays["seen"].numpy() == 4
    assert dict(metrics) == {"loss": 2.5}


def test_it_agrees_with_flowers_own_fedavg():
    rng = np.random.default_rng(0)
    model = {"a": np.zeros((7, 5), np.float32), "b": np.zeros(5, np.float32)}
    made = [
        {name: rng.standard_normal(each.shape).astype(np.float32) for name, each in model.items()} for _ in range(4)
    ]
    replies = [reply(arrays, 10 * (n + 1), node=n + 1, loss=float(n)) for n, arrays in enumerate(made)]
    strategy = FedAvg()
    begin(strategy, model)
    ours, our_metrics = strategy.aggregate_train(1, replies)
    theirs, their_metrics = FlowersFedAvg().aggregate_train(1, replies)
    for name in model:
        np.testing.assert_allclose(ours[name].numpy(), theirs[name].numpy(), rtol=1e-5, atol=1e-6)
    assert our_metrics["loss"] == pytest.approx(their_metrics["loss"])


def test_bad_replies_leave_no_trace_in_the_bits_of_the_result():
    good = [reply(update(value), 3, node=node) for node, value in ((1, 0.1), (2, 0.7))]
    bad = [
        failed("RuntimeError: boom", node=3),
        reply(update(np.nan), 3, node=3),
        reply({"w": np.ones(3, np.float32)}, 3, node=3),
        reply(update(9.0), -1, node=4),
        reply(None, 5, node=4),
    ]
    results = []
    for replies in (good, [bad[0], good[0], *bad[1:], good[1]]):
        strategy = FedAvg()
        begin(strategy, MODEL)
        results.append(strategy.aggregate_train(1, replies)[0]["w"].data)
    assert results[0] == results[1]


def test_without_a_good_reply_there_is_no_result():
    strategy = FedAvg()
    begin(strategy, MODEL)
    assert strategy.aggregate_train(1, [failed("x")]) == (None, None)
    assert strategy.aggregate_train(1, []) == (None, None)
    assert strategy.aggregate_evaluate(1, [failed("x")]) is None


def test_order_of_arrival_does_not_show_because_nodes_are_folded_by_slot():
    replies = [reply(update(value), node, node=node) for node, value in ((1, 0.1), (2, 1e6), (3, 0.3), (4, -1e6 / 7))]
    results = set()
    for order in (replies, replies[::-1], replies[2:] + replies[:2]):
        strategy = FedAvg()
        begin(strategy, MODEL)
        results.add(strategy.aggregate_train(1, iter(order))[0]["w"].data)
    assert len(results) == 1


def test_sampling_depends_on_seed_round_and_attempt_and_not_on_node_ids():
    def slots(seed, server_round, attempt=0, offset=0):
        strategy = FedAvg(clients_per_round=5, seed=seed)
        strategy.attempt = attempt
        strategy.eligible = lambda: range(100 + offset, 150 + offset)
        messages = strategy.configure_train(server_round, encode(MODEL), ConfigRecord(), None)
        return [node - 100 - offset for node in asked(messages)]

    assert slots(1, 1) == slots(1, 1, offset=7)
    assert len(set(slots(1, 1))) == 5
    assert len({tuple(slots(*each)) for each in ((1, 1), (2, 1), (1, 2), (1, 1, 1))}) == 4


@pytest.mark.parametrize(
    ("arguments", "size"), [({}, 10), ({"fraction_train": 0.25}, 2), ({"clients_per_round": 99}, 10)]
)
def test_the_cohort_is_a_number_or_a_share_and_at_least_one(arguments, size):
    assert len(begin(FedAvg(**arguments), MODEL, nodes=10)) == size
    assert len(begin(FedAvg(fraction_train=0.01), MODEL, nodes=10)) == 1


def test_messages_share_one_content_that_names_the_round():
    messages = begin(FedAvg(), MODEL, server_round=7)
    assert all(message.content is messages[0].content for message in messages)
    assert messages[0].content["config"]["server-round"] == 7
    assert messages[0].metadata.message_type == MessageType.TRAIN


def test_too_few_clients_is_an_error_that_says_so():
    with pytest.raises(StrategyError, match="at least 3 clients; 2 can be asked"):
        begin(FedAvg(min_available_nodes=3), MODEL, nodes=2)
    with pytest.raises(StrategyError, match="at least 1 clients; 0 can be asked"):
        begin(FedAvg(), MODEL, nodes=0)


def test_evaluation_asks_nobody_at_fraction_zero_and_leaves_out_clients_without_examples():
    strategy = FedAvg(fraction_evaluate=0)
    assert strategy.configure_evaluate(1, encode(MODEL), ConfigRecord(), None) == []
    replies = [reply(None, 0), reply(None, 2, accuracy=0.5), reply(None, 6, accuracy=0.9)]
    assert dict(strategy.aggregate_evaluate(1, replies)) == {"accuracy": pytest.approx(0.8)}


def test_replies_are_dropped_before_the_next_one_is_asked_for():
    alive = []

    def stream():
        for node in range(1, 5):
            assert all(ref() is None for ref in alive)
            message = reply({"w": np.full(3 << 20, node, np.float32)}, node=node)
            alive.extend((weakref.ref(message), weakref.ref(message.content), weakref.ref(message.content["arrays"])))
            yield message
            del message

    strategy = FedAvg()
    begin(strategy, {"w": np.zeros(3 << 20, np.float32)})
    gc.disable()  # not by the cycle collector, which may come late
    try:
        arrays, _ = strategy.aggregate_train(1, stream())
    finally:
        gc.enable()
    assert arrays["w"].numpy()[0] == 2.5


def test_fedprox_adds_mu_to_the_configuration_and_nothing_else():
    messages = begin(FedProx(mu=0.3), MODEL)
    assert dict(messages[0].content["config"]) == {"proximal-mu": 0.3, "server-round": 1}
    with pytest.raises(StrategyError, match="mu must be"):
        FedProx(mu=-1)


def test_a_state_of_another_strategy_is_refused():
    with pytest.raises(StrategyError, match="no state"):
        FedAvg().restore({"momentum": np.ones(1)})


def test_a_round_is_a_share_of_the_clients_there_are_also_where_not_all_are_eligible():
    strategy = FedAvg(fraction_train=0.5)
    assert strategy.cohort_size(20) == 10
    strategy.there = 20
    assert strategy.cohort_size(14) == 10  # a repeat, without the six that failed
    assert strategy.cohort_size(7) == 7
