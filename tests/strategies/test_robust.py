"""The robust strategies over real replies: what they share, what they need, and Flower's own beside them."""

import inspect
import tracemalloc
import warnings

import flwr.serverapp.strategy as flowers
import numpy as np
import pytest
from flwr.app import Message, RecordDict

from fl_common.errors import StrategyError, TooFewReplies
from fl_common.messages.arrays import encode
from fl_common.messages.group_reply import Member, Together
from fl_common.settings.schema import parse
from strategies import BUILT_IN, make
from strategies.robust import Robust
from tests.support.strategy_messages import ask, begin, reply

ROBUST = [name for name, kind in BUILT_IN.items() if issubclass(kind, Robust)]
MODEL = {
    "dense/kernel": np.full((2, 3), 0.5, np.float32),
    "norm/mean": np.full(3, 2.0, np.float32),
    "seen": np.array(4, np.int64),
}


def updates(count, seed=0, model=MODEL):
    rng = np.random.default_rng(seed)
    return [
        {
            name: array + rng.standard_normal(array.shape).astype(np.float32) if array.dtype == np.float32 else array
            for name, array in model.items()
        }
        for _ in range(count)
    ]


def round_of(strategy, models, *, model=MODEL, order=None, examples=None):
    begin(strategy, model, nodes=len(models))
    made = [reply(each, examples[n] if examples else 5, node=n + 1, loss=float(n)) for n, each in enumerate(models)]
    arrays, metrics = strategy.aggregate_train(1, iter([made[place] for place in order or range(len(made))]))
    return {name: array.numpy() for name, array in arrays.items()}, dict(metrics)


@pytest.mark.parametrize("name", ROBUST)
def test_dtypes_and_integers_are_kept_and_statistics_take_the_median(name):
    strategy = make(parse({"strategy": name}))
    strategy.non_trainable = frozenset({"norm/mean"})
    models = updates(9)
    models[0]["norm/mean"][:] = 1e30
    result, metrics = round_of(strategy, models)
    assert {key: (each.shape, each.dtype) for key, each in result.items()} == {
        key: (each.shape, each.dtype) for key, each in MODEL.items()
    }
    assert result["seen"] == 4
    assert np.array_equal(result["norm/mean"], np.median([each["norm/mean"] for each in models], axis=0))
    assert metrics == {"loss": 4.0}


@pytest.mark.parametrize("name", ROBUST)
def test_statistics_do_not_sway_what_the_rule_does_with_the_weights(name):
    results = []
    for scale in (1, 1e6):
        models = updates(9)
        models[3]["norm/mean"] *= np.float32(scale)
        strategy = make(parse({"strategy": name}))
        strategy.non_trainable = frozenset({"norm/mean"})
        results.append(round_of(strategy, models)[0]["dense/kernel"].tobytes())
    assert results[0] == results[1]


@pytest.mark.parametrize("name", ROBUST)
def test_the_order_of_arrival_does_not_show_in_a_single_bit(name):
    strategy = make(parse({"strategy": name}))
    one, other = (
        round_of(make(parse({"strategy": name})), updates(9), order=order)[0]
        for order in (None, [4, 8, 1, 0, 3, 2, 7, 6, 5])
    )
    assert all(one[key].tobytes() == other[key].tobytes() for key in one)
    assert strategy.state() == {}


@pytest.mark.parametrize("name", ROBUST)
def test_one_hostile_update_of_nine_moves_the_model_by_little(name):
    models = updates(9)
    honest = round_of(make(parse({"strategy": name})), models[:8])[0]["dense/kernel"]
    models[8]["dense/kernel"] = np.full((2, 3), -1e30, np.float32)
    attacked = round_of(make(parse({"strategy": name})), models)[0]["dense/kernel"]
    assert np.abs(attacked - honest).max() < 3


@pytest.mark.parametrize("name", ROBUST)
def test_what_a_client_claims_of_its_examples_is_not_believed_by_default(name):
    models = updates(9)
    modest, boasting = (
        round_of(make(parse({"strategy": name})), models, examples=examples)[0]["dense/kernel"]
        for examples in ([5] * 9, [5] * 8 + [9_999_999])
    )
    assert np.array_equal(modest, boasting)


@pytest.mark.parametrize("name", ["multikrum", "rfa", "normclipping", "centeredclipping"])
def test_examples_weigh_where_that_is_asked_for(name):
    models = updates(9)
    results = [
        round_of(make(parse({"strategy": name, "strategy.weighted": True})), models, examples=examples)[0]
        for examples in ([5] * 9, [5, 50, 1, 700, 9, 9, 3, 2, 80])
    ]
    assert not np.array_equal(results[0]["dense/kernel"], results[1]["dense/kernel"])


@pytest.mark.parametrize(
    ("name", "needs"), [("trimmedmean", 5), ("krum", 7), ("multikrum", 7), ("bulyan", 11), ("median", 1), ("rfa", 1)]
)
def test_too_few_replies_for_the_rule_are_an_error_and_change_nothing(name, needs):
    strategy = make(parse({"strategy": name} | ({"strategy.f": 2} if needs > 1 else {})))
    models = updates(needs)
    round_of(strategy, models)
    if needs == 1:
        return
    with pytest.raises(StrategyError, match=f"needs at least {needs} replies .* f=2 .* {needs - 1} clients are asked"):
        begin(strategy, MODEL, nodes=needs - 1)
    begin(strategy, MODEL, nodes=needs)
    few = iter([reply(each, node=n + 1) for n, each in enumerate(models[1:])])
    with pytest.raises(TooFewReplies, match=f"needs at least {needs} replies.*; {needs - 1} came"):
        strategy.aggregate_train(1, few)
    assert strategy.state() == {}
    assert strategy.aggregate_train(1, iter([])) == (None, None)


def test_f_is_a_number_or_a_share_rounded_up():
    def kind(f):
        return make(parse({"strategy": "krum", "strategy.f": f}))

    assert [kind(0.2).borne(n) for n in (5, 10, 11, 20)] == [1, 2, 3, 4]
    assert [kind(0.1).borne(n) for n in (30, 1)] == [3, 1]
    assert kind(3).borne(100) == 3
    assert kind("2").borne(100) == 2
    for wrong in (-1, 1.5, "many", True, float("nan")):
        with pytest.raises(StrategyError, match="f must be a share"):
            kind(wrong)


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("multikrum", {"m": -1}, "m must be at least 0"),
        ("rfa", {"smoothing": 0}, "smoothing must be above 0"),
        ("normclipping", {"bound": -1}, "bound must be at least 0"),
        ("centeredclipping", {"bound": -0.1}, "bound must be at least 0"),
        ("centeredclipping", {"iterations": 0}, "iterations must be at least 1"),
    ],
)
def test_arguments_out_of_range_are_refused(name, arguments, said):
    with pytest.raises(StrategyError, match=said):
        make(parse({"strategy": name} | {f"strategy.{key}": value for key, value in arguments.items()}))


def test_the_mean_of_many_is_no_reply_for_a_rule_that_compares():
    strategy = make(parse({"strategy": "median"}))
    begin(strategy, MODEL)
    content = RecordDict({"arrays": encode(MODEL), "metrics": reply(None, 5).content["metrics"]})
    many = Together(content, ask(), [Member("1", 5, {}), Member("2", 5, {})])
    assert isinstance(many, Message)
    with pytest.raises(StrategyError, match="needs each client's reply"):
        strategy.aggregate_train(1, iter([many]))


def test_the_centre_of_clipping_survives_a_checkpoint():
    first, second = updates(5), updates(5, seed=1)
    whole = make(parse({"strategy": "centeredclipping"}))
    round_of(whole, first)
    resumed = make(parse({"strategy": "centeredclipping"}))
    resumed.restore({name: array.copy() for name, array in whole.state().items()})
    expected, got = (round_of(each, second)[0] for each in (whole, resumed))
    assert all(expected[name].tobytes() == got[name].tobytes() for name in expected)
    fresh = round_of(make(parse({"strategy": "centeredclipping"})), second)[0]
    assert not np.array_equal(expected["dense/kernel"], fresh["dense/kernel"])
    resumed.restore({"other": np.zeros(3, np.float32)})
    with pytest.raises(StrategyError, match="of another model"):
        round_of(resumed, second)


@pytest.mark.parametrize("name", ROBUST)
def test_replies_are_held_once_and_not_copied(name):
    size = 1_000_000  # below what numba's kernels are compiled for, which takes memory of its own
    model = {"w": np.zeros(size, np.float32)}
    strategy = make(parse({"strategy": name}))
    begin(strategy, model, nodes=12)
    rng = np.random.default_rng(0)
    replies = [reply({"w": rng.standard_normal(size, dtype=np.float32)}, node=node) for node in range(1, 13)]
    tracemalloc.start()
    strategy.aggregate_train(1, iter(replies))
    copies = tracemalloc.get_traced_memory()[1] / model["w"].nbytes
    tracemalloc.stop()
    # the result, its encoding, and each thread's room; WeightedMean's sums for Multi-Krum, the centre for clipping
    assert copies < 6


@pytest.mark.parametrize("weighted", [False, True])
def test_norm_clipping_with_a_bound_keeps_no_reply_and_ends_where_holding_them_does(weighted):
    models, examples = updates(9), [3, 1, 4, 1, 5, 9, 2, 6, 5]
    models[4]["dense/kernel"] *= np.float32(1e20)
    settings = parse({"strategy": "normclipping", "strategy.bound": 2.0, "strategy.weighted": weighted})
    streamed, held = make(settings), make(settings)
    one, _ = round_of(streamed, models, examples=examples)
    begin(held, MODEL, nodes=9)
    replies = [reply(each, examples[n], node=n + 1) for n, each in enumerate(models)]
    other, _ = Robust.aggregate_train(held, 1, replies)
    for name in one:
        np.testing.assert_allclose(one[name], other[name].numpy(), rtol=1e-5, atol=1e-6)


def test_norm_clipping_with_a_bound_lets_each_reply_go():
    model, rng = {"w": np.zeros(1_000_000, np.float32)}, np.random.default_rng(0)
    strategy = make(parse({"strategy": "normclipping", "strategy.bound": 1.0}))
    peaks = []
    for count in (12, 36):
        begin(strategy, model, nodes=count)
        tracemalloc.start()
        strategy._mean = None
        strategy.aggregate_train(
            1, (reply({"w": rng.standard_normal(1_000_000, dtype=np.float32)}, node=n + 1) for n in range(count))
        )
        peaks.append(tracemalloc.get_traced_memory()[1] / model["w"].nbytes)
        tracemalloc.stop()
    # what waits for its turn in the order of slots, which is bounded in bytes, and two copies
    assert peaks[1] < peaks[0] + 10 < 36


# ---- Flower's own, where it is right


@pytest.mark.parametrize(
    ("ours", "theirs", "count"),
    [
        ({"strategy": "median"}, flowers.FedMedian(), 9),
        ({"strategy": "median"}, flowers.FedMedian(), 10),
        ({"strategy": "trimmedmean", "strategy.f": 2}, flowers.FedTrimmedAvg(beta=0.2), 10),
        ({"strategy": "krum", "strategy.f": 3}, flowers.Krum(num_malicious_nodes=3), 10),
        (
            {"strategy": "multikrum", "strategy.f": 3, "strategy.m": 4, "strategy.weighted": True},
            flowers.MultiKrum(num_malicious_nodes=3, num_nodes_to_select=4),
            10,
        ),
        ({"strategy": "bulyan", "strategy.f": 0}, flowers.Bulyan(num_malicious_nodes=0), 5),
    ],
)
def test_ours_agree_with_flowers_own(ours, theirs, count):
    models, examples = updates(count), list(range(3, 3 + count))
    result, _ = round_of(make(parse(ours)), models, examples=examples)
    made = [reply(each, examples[n], node=n + 1) for n, each in enumerate(models)]
    expected, _ = theirs.aggregate_train(1, made)
    np.testing.assert_allclose(result["dense/kernel"], expected["dense/kernel"].numpy(), rtol=1e-5, atol=1e-6)


# ---- where it is not: what our documentation says of it


def flowers_model(strategy, models):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arrays, _ = strategy.aggregate_train(1, [reply(each, node=n + 1) for n, each in enumerate(models)])
    return arrays["w"].numpy()


def test_flowers_krum_cannot_tell_models_apart_that_are_large_and_close():
    current = {"w": np.full(1000, 300.0, np.float32)}
    steps = [0.03, 0.04, 0.055, 0.08, 0.5]
    models = [{"w": current["w"] + np.float32(step)} for step in steps]
    ours, _ = round_of(make(parse({"strategy": "krum", "strategy.f": 1})), models, model=current)
    assert ours["w"][0] == np.float32(300) + np.float32(0.04)
    distances = flowers.multikrum.compute_distances([encode(each) for each in models])
    true = [[np.sum((a["w"].astype(float) - b["w"]) ** 2) for a in models] for b in models]
    assert np.abs(np.array(true)[:4, :4]).max() < 3
    assert np.abs(distances - true)[:4, :4].max() > 3  # in float32, of squares of whole models: 9e7


def test_flowers_trimmed_mean_of_everything_cut_is_not_a_number_where_ours_refuses():
    models = [{"w": np.full(3, step, np.float32)} for step in (1, 2, 3, 4)]
    assert np.isnan(flowers_model(flowers.FedTrimmedAvg(beta=0.5), models)).all()
    with pytest.raises(StrategyError, match="needs at least 5 replies"):
        begin(make(parse({"strategy": "trimmedmean", "strategy.f": 0.5})), models[0], nodes=4)


def test_flowers_bulyan_scores_once_where_the_paper_scores_again_after_each_choice():
    models = [{"w": np.array([step], np.float32)} for step in (0, 1, 3, 7, 8, 10, 100)]
    assert flowers_model(flowers.Bulyan(num_malicious_nodes=1), models) != pytest.approx(25 / 3)
    source = inspect.getsource(flowers.bulyan.Bulyan.aggregate_train)
    assert source.count("self.selection_rule(") == 1


def test_flowers_krum_takes_fewer_replies_than_its_guarantee_needs():
    models = [{"w": np.array([step], np.float32)} for step in (0, 100, 101)]
    assert flowers_model(flowers.Krum(num_malicious_nodes=2), models)[0] >= 100  # two hostile of three win
    with pytest.raises(StrategyError, match="needs at least 7"):
        begin(make(parse({"strategy": "krum", "strategy.f": 2})), models[0], nodes=3)
