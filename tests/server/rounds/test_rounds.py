"""The round loop on real digits with clients in process: what ends up in the model, whatever clients do."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Error, Message, MessageType, MetricRecord, RecordDict

import strategies
from fl_client.app import Workplace, make_app
from fl_common.errors import ParterreError, RoundError
from fl_common.messages.arrays import decode, encode
from fl_common.models.weights import non_trainable_names, weights_of
from fl_common.settings.schema import Settings
from fl_common.tasks.task import build, resolve
from fl_server.rounds.loop import Rounds
from fl_server.rounds.state import State, restore_strategy
from fl_server.store.runs import Run
from strategies.fedavg import FedAvg
from tests.support.in_process_grid import InProcessGrid, client, lost

TASK = str(Path(__file__).parents[2] / "support" / "small_task.py")
COMMON = {"task": TASK, "seed": 3, "partitions": 3, "rounds": 2, "keep": 10, "deadline_seconds": 30.0}
NODES = (501, 502, 503)
FLOWERS = ("FedAvg", "FedYogi", "FedMedian", "Krum", "FedTrimmedAvg")


class Bench:
    """Three clients' work, shared by all tests: the model is traced once for each set of settings."""

    def __init__(self):
        self.app = make_app(Workplace())
        self.settings = json.dumps(Settings(**COMMON).model_dump())
        self.model = build(resolve(Settings(**COMMON)), 3)
        self.start = weights_of(self.model)
        self.non_trainable = non_trainable_names(self.model)

    def client(self, seen=None):
        """A real client. All are told one set of settings, so that the model is traced once for all tests."""
        answer = client(self.app)

        def watched(message):
            message.content["config"]["settings"] = self.settings
            reply = answer(message)
            if seen is not None:
                seen.append((message, reply))
            return reply

        return watched

    def grid(self, nodes=NODES, *, rng=None, seen=None, **hostile):
        known = dict.fromkeys(nodes, self.client(seen)) | {int(key[1:]): node for key, node in hostile.items()}
        return InProcessGrid(known, rng=rng)

    def strategy(self, settings):
        strategy = strategies.make(settings)
        if isinstance(strategy, FedAvg):
            strategy.non_trainable = self.non_trainable
        return strategy

    def run(self, directory, grid, *, evaluate=None, using=None, **changes):
        settings = Settings(**(COMMON | changes))
        strategy = using or self.strategy(settings)
        run = Run.create(Path(directory), settings)
        with run.lock():
            state, reason = Rounds(grid, strategy, settings, run, evaluate=evaluate).run(State(self.start))
        return state, reason, run

    def resume(self, directory, grid):
        run = Run.open(Path(directory))
        strategy = self.strategy(run.settings)
        with run.lock():
            checkpoint = run.latest()
            restore_strategy(strategy, checkpoint.strategy)
            state, _ = Rounds(grid, strategy, run.settings, run).run(State.of(checkpoint))
        return state


@pytest.fixture(scope="module")
def bench():
    return Bench()


@pytest.fixture(scope="module")
def without_the_third(bench, tmp_path_factory):
    """The model that the first two clients make on their own."""
    return bench.run(tmp_path_factory.mktemp("two") / "run", bench.grid(NODES[:2]))[0].arrays


def same(left, right):
    return list(left) == list(right) and all(left[name].tobytes() == right[name].tobytes() for name in left)


def events(run, kind):
    return [event for event in run.events() if event["event"] == kind]


def is_train(message):
    return message.metadata.message_type == MessageType.TRAIN


# ---- a round


def test_a_round_of_fedavg_is_the_mean_of_the_updates_weighted_by_examples(bench, tmp_path):
    seen = []
    state, reason, _ = bench.run(tmp_path / "run", bench.grid(seen=seen), rounds=1)
    updates = {message.content["config"]["client"]: reply.content for message, reply in seen if is_train(message)}
    weights = [updates[slot]["metrics"]["num-examples"] for slot in range(3)]
    assert (reason, weights) == ("rounds", [60, 120, 180])
    for name, start in bench.start.items():
        arrays = [decode(updates[slot]["arrays"][name]) for slot in range(3)]
        if start.dtype.kind != "f":
            assert state.arrays[name] == start  # an integer variable is kept, though the clients counted on
            assert arrays[0] > start
            continue
        total = sum(weight * array.astype(np.float64) for weight, array in zip(weights, arrays, strict=True))
        assert state.arrays[name].dtype == np.float32
        np.testing.assert_array_equal(state.arrays[name], (total / sum(weights)).astype(np.float32))
        assert not np.array_equal(state.arrays[name], start)


def test_statistics_of_batch_norm_are_averaged_by_every_strategy(bench, tmp_path):
    statistics = [name for name in bench.start if "moving" in name]
    assert len(statistics) == 2
    first = bench.run(tmp_path / "avg", bench.grid(), rounds=1)[0].arrays
    second = bench.run(tmp_path / "adam", bench.grid(), rounds=1, using=strategies.make(Settings()))[0].arrays
    third = bench.run(tmp_path / "m", bench.grid(), rounds=1, strategy="fedadam")[0]
    for name in statistics:
        np.testing.assert_array_equal(first[name], second[name])
        np.testing.assert_array_equal(first[name], third.arrays[name])
    assert not same(first, third.arrays)


def test_the_event_of_a_round_counts_what_happened(bench, tmp_path):
    *_, run = bench.run(tmp_path / "run", bench.grid(x503=lost), evaluate=lambda arrays: {"loss": 0.5, "accuracy": 0.9})
    event = run.rounds()[0]
    size = sum(len(array.data) for array in encode(bench.start).values())
    assert (event["cohort"], event["replies"], event["rejected"]) == (3, 2, 1)  # and was not asked to evaluate then
    assert (event["bytes_up"], event["bytes_down"]) == (2 * size, 5 * size)
    assert (event["loss"], event["accuracy"], event["evaluated_on"]) == (0.5, 0.9, "test")
    assert set(event["phases"]) == {"train", "aggregate", "evaluate", "commit"}
    assert all(seconds >= 0 for seconds in event["phases"].values())
    assert len(event["spread"]["accuracy"]) == 5


def test_no_metric_of_a_model_can_pass_for_a_figure_of_the_round(bench, tmp_path):
    odd = {"loss": 0.5, "round": 99.0, "seconds": 1e6, "recall": 0.25}
    *_, run = bench.run(tmp_path / "run", bench.grid(), rounds=1, evaluate=lambda arrays: odd)
    event = run.rounds()[0]
    assert (event["round"], event["loss"], event["accuracy"]) == (1, 0.5, None)
    assert event["seconds"] < 1e5
    assert event["metrics"] == {"round": 99.0, "recall": 0.25}


def test_without_a_test_set_the_clients_evaluate(bench, tmp_path):
    event = bench.run(tmp_path / "run", bench.grid(), rounds=1)[2].rounds()[0]
    assert event["evaluated_on"] == "clients"
    assert event["loss"] == pytest.approx(event["spread"]["loss"][2], abs=1e-5)  # all have one validation set


def test_nobody_evaluates_where_none_is_asked(bench, tmp_path):
    seen = []
    *_, run = bench.run(tmp_path / "run", bench.grid(seen=seen), rounds=1, fraction_evaluate=0)
    assert all(is_train(message) for message, _ in seen)
    assert (run.rounds()[0]["loss"], run.rounds()[0]["spread"]) == (None, {})


def test_neither_the_order_of_arrival_nor_node_ids_show_to_the_bit(bench, tmp_path):
    grids = [bench.grid(rng=random.Random(seed)) for seed in range(3)] + [bench.grid((7, 2**62, 2**63))]
    found = [bench.run(tmp_path / str(n), grid)[0].arrays for n, grid in enumerate(grids)]
    assert all(same(found[0], each) for each in found[1:])


def test_a_cohort_is_drawn_by_slot_and_seed(bench, tmp_path):
    drawn = []
    for number, nodes in enumerate([(1, 2, 3), (77, 88, 99)]):
        seen = []
        bench.run(tmp_path / str(number), bench.grid(nodes, seen=seen), rounds=2, clients_per_round=1)
        drawn.append([message.content["config"]["client"] for message, _ in seen if is_train(message)])
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 2


def test_a_replacement_goes_on_where_the_one_that_left_was(bench, tmp_path):
    whole = bench.run(tmp_path / "whole", bench.grid())[0].arrays
    grid = bench.grid()

    def evaluated(arrays):  # between two rounds
        if 502 in grid.nodes:
            grid.nodes[999] = grid.nodes.pop(502)
        return {"loss": 1.0}

    assert same(bench.run(tmp_path / "churn", grid, evaluate=evaluated, fraction_evaluate=0)[0].arrays, whole)


# ---- hostile clients


def reply(message, arrays, metrics=None):
    content = RecordDict({"arrays": arrays if isinstance(arrays, ArrayRecord) else encode(arrays)})
    content["metrics"] = MetricRecord({"num-examples": 60} if metrics is None else metrics)
    return Message(content, reply_to=message)


def poisoned(change=lambda arrays: arrays, metrics=None):
    """A client that answers with the server's own arrays after `change`."""

    def node(message):
        arrays = {name: decode(array).copy() for name, array in message.content["arrays"].items()}
        return reply(message, change(arrays) or arrays, metrics)

    return node


def filled(value):
    def change(arrays):
        next(iter(arrays.values())).flat[-1] = value

    return change


def renamed(arrays):
    return {f"other/{name}": array for name, array in arrays.items()}


def retyped(arrays):
    return {
        name: array.astype(np.float64 if array.dtype.kind == "f" else array.dtype) for name, array in arrays.items()
    }


def reshaped(arrays):
    return {name: array.reshape(-1, 1) for name, array in arrays.items()}


def random_bytes(message):
    rng = np.random.default_rng(1)
    arrays = {
        name: Array(dtype=array.dtype, shape=array.shape, stype="numpy.ndarray", data=rng.bytes(len(array.data)))
        for name, array in message.content["arrays"].items()
    }
    return reply(message, ArrayRecord(arrays))


def foreign_bytes(message):
    arrays = message.content["arrays"].items()
    return reply(
        message, ArrayRecord({name: Array(each.dtype, each.shape, "torch", each.data) for name, each in arrays})
    )


def truncated(message):
    arrays = message.content["arrays"].items()
    return reply(
        message, ArrayRecord({name: Array(each.dtype, each.shape, each.stype, each.data[:-1]) for name, each in arrays})
    )


def no_arrays(message):
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": 60})}), reply_to=message)


HOSTILE = {
    "NaN": (poisoned(filled(np.nan)), "not-finite"),
    "infinity": (poisoned(filled(-np.inf)), "not-finite"),
    "a wrong name": (poisoned(renamed), "name"),
    "an array too many": (poisoned(lambda arrays: arrays | {"more": np.zeros(3, np.float32)}), "name"),
    "an array too few": (poisoned(lambda arrays: dict(list(arrays.items())[1:])), "name"),
    "a wrong shape": (poisoned(reshaped), "shape"),
    "a wrong dtype": (poisoned(retyped), "dtype"),
    "random bytes": (random_bytes, "malformed"),
    "another serialisation": (foreign_bytes, "malformed"),
    "bytes cut off": (truncated, "malformed"),
    "no weight": (poisoned(metrics={"loss": 1.0}), "weight"),
    "a weight of zero": (poisoned(metrics={"num-examples": 0}), "weight"),
    "a negative weight": (poisoned(metrics={"num-examples": -60}), "weight"),
    "a weight of NaN": (poisoned(metrics={"num-examples": float("nan")}), "weight"),
    "an absurd weight": (poisoned(metrics={"num-examples": 10**15}), "weight"),
    "a list for a weight": (poisoned(metrics={"num-examples": [60, 60]}), "metrics"),
    "a list for a metric": (poisoned(metrics={"num-examples": 60, "loss": [1.0, 2.0]}), "metrics"),
    "no arrays": (no_arrays, "empty"),
    "an empty reply": (lambda message: Message(RecordDict(), reply_to=message), "empty"),
    "an error": (lambda message: Message(Error(code=2, reason="ValueError: no"), reply_to=message), "error"),
    "a lost node": (lost, "lost"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_reply_is_told_and_changes_nothing(bench, without_the_third, tmp_path, what):
    node, reason = HOSTILE[what]
    honest = bench.client()
    grid = bench.grid(x503=lambda message: node(message) if is_train(message) else honest(message))
    state, _, run = bench.run(tmp_path / "run", grid)
    told = events(run, "rejected")
    assert [(event["round"], event["client"], event["node"]) for event in told] == [(1, 2, "503"), (2, 2, "503")]
    assert {(event["reason"], event["phase"]) for event in told} == {(reason, "train")}
    assert all(event["detail"] for event in told)
    assert [(each["cohort"], each["replies"], each["rejected"]) for each in run.rounds()] == [(3, 2, 1)] * 2
    assert same(state.arrays, without_the_third)


@pytest.mark.parametrize(
    ("what", "reason"),
    [("an error", "error"), ("an empty reply", "empty"), ("no weight", "weight"), ("a list for a metric", "metrics")],
)
def test_a_hostile_evaluation_is_told_and_left_out(bench, tmp_path, what, reason):
    honest = bench.client()
    grid = bench.grid(x503=lambda message: honest(message) if is_train(message) else HOSTILE[what][0](message))
    *_, run = bench.run(tmp_path / "run", grid, rounds=1)
    told = [event for event in events(run, "rejected") if event["phase"] == "evaluate"]
    assert [(event["client"], event["reason"]) for event in told] == [(2, reason)]
    silent = bench.grid(x503=lambda message: honest(message) if is_train(message) else lost(message))
    without = bench.run(tmp_path / "without", silent, rounds=1)[2].rounds()[0]
    assert (run.rounds()[0]["loss"], run.rounds()[0]["spread"]) == (without["loss"], without["spread"])


def test_a_client_that_never_answers_is_late(bench, without_the_third, tmp_path):
    state, _, run = bench.run(tmp_path / "run", bench.grid(x503=lambda message: None), deadline_seconds=0.6)
    assert {event["reason"] for event in events(run, "rejected")} == {"late"}
    assert len(run.rounds()) == 2
    assert same(state.arrays, without_the_third)


# ---- quorum


@pytest.mark.parametrize("name", ["fedavg", "fedadam", "fedyogi"])
def test_a_quorum_missed_every_time_ends_the_run_and_changes_nothing(bench, tmp_path, name):
    trained = []

    def dies_later(message):
        trained.append(is_train(message))
        return lost(message) if sum(trained) > 3 and is_train(message) else bench.client()(message)

    strategy = bench.strategy(Settings(strategy=name))
    grid = InProcessGrid({**dict.fromkeys(NODES[1:], dies_later), NODES[0]: bench.client()})
    with pytest.raises(RoundError) as caught:
        bench.run(tmp_path / "run", grid, using=strategy, rounds=3, quorum=2, max_repeats=2)
    run = Run.open(tmp_path / "run")
    message = str(caught.value)
    assert "missed its quorum 3 times" in message
    assert "Node unavailable" in message
    assert f"fl resume {run.directory}" in message
    assert [event["attempt"] for event in events(run, "repeat")] == [1, 2, 3]
    saved = run.latest()
    assert saved.round == len(run.rounds()) >= 1
    assert same(saved.strategy, State(saved.arrays).checkpoint(strategy).strategy)


def test_too_few_replies_for_a_robust_rule_repeat_the_round_and_then_end_the_run(bench, tmp_path):
    strategy = bench.strategy(Settings(strategy="trimmedmean", strategy_args='{"f": 1}'))
    grid = InProcessGrid({**dict.fromkeys(NODES[1:], bench.client()), NODES[0]: lost})
    with pytest.raises(RoundError, match="0 rounds are committed"):
        bench.run(tmp_path / "run", grid, using=strategy, max_repeats=1)
    first, second = (event["reason"] for event in events(Run.open(tmp_path / "run"), "repeat"))
    assert first == "TrimmedMean needs at least 3 replies in a round to bear f=1 hostile ones; 2 came"
    assert "only 2 clients are asked" in second  # the one that failed is not asked again while others are enough


def test_a_round_for_which_nobody_comes_ends_the_run(bench, tmp_path):
    with pytest.raises(RoundError, match=r"waited 0\.3 s for 2 clients; 1 came"):
        bench.run(tmp_path / "run", bench.grid(NODES[:1]), wait_seconds=0.3)


# ---- stopping


def scripted(*values):
    results = iter(values)
    return lambda arrays: next(results)


def test_a_run_stops_at_its_target_accuracy(bench, tmp_path):
    evaluate = scripted(*({"loss": 1.0, "accuracy": value} for value in (0.5, 0.95, 0.99)))
    options = {"rounds": 3, "target_accuracy": 0.95, "fraction_evaluate": 0}
    state, reason, run = bench.run(tmp_path / "run", bench.grid(), evaluate=evaluate, **options)
    assert (state.round, reason, len(run.rounds())) == (2, "target_accuracy", 2)


def test_a_run_stops_when_its_patience_ends(bench, tmp_path):
    evaluate = scripted(*({"loss": loss} for loss in (3.0, 2.0, 2.5, float("nan"), 2.0, 1.0)))
    options = {"rounds": 9, "patience": 3, "fraction_evaluate": 0}
    state, reason, _ = bench.run(tmp_path / "run", bench.grid(), evaluate=evaluate, **options)
    assert (state.round, reason, state.best) == (5, "patience", 2.0)


# ---- going on


@pytest.mark.parametrize("name", ["fedavg", "fedadam", "fedyogi", "fedavgm", "flwr.serverapp.strategy:FedYogi"])
def test_a_run_resumed_after_any_round_ends_in_the_same_bits(bench, tmp_path, name):
    whole, _, run = bench.run(tmp_path / "whole", bench.grid(), rounds=3, strategy=name)
    for done in (1, 2):
        copy = shutil.copytree(run.directory, tmp_path / str(done))
        for later in range(done + 1, 4):
            shutil.rmtree(copy / "checkpoints" / f"{later:04d}")
        resumed = bench.resume(copy, bench.grid((9, 8, 7)))
        assert same(resumed.arrays, whole.arrays)
        assert resumed.round == 3


def test_a_run_that_has_had_all_its_rounds_is_not_trained_further(bench, tmp_path):
    state, _, run = bench.run(tmp_path / "run", bench.grid(), rounds=1)
    assert same(bench.resume(run.directory, InProcessGrid({})).arrays, state.arrays)


# ---- Flower's own strategies


@pytest.mark.parametrize("name", FLOWERS)
def test_flowers_own_strategies_run_unchanged(bench, tmp_path, name):
    state, _, run = bench.run(tmp_path / "run", bench.grid(), strategy=f"flwr.serverapp.strategy:{name}")
    assert (state.round, [event["replies"] for event in run.rounds()]) == (2, [3, 3])
    assert {array.dtype.name for array in state.arrays.values()} == {"float32", "int32"}
    assert all(np.isfinite(array).all() for array in state.arrays.values())
    assert not any(same({name: array}, {name: bench.start[name]}) for name, array in state.arrays.items() if array.ndim)
    assert run.rounds()[-1]["loss"] > 0


def test_flowers_fedavg_agrees_with_ours(bench, tmp_path):
    theirs = bench.run(tmp_path / "theirs", bench.grid(), strategy="flwr.serverapp.strategy:FedAvg")[0].arrays
    ours = bench.run(tmp_path / "ours", bench.grid())[0].arrays
    for name in ours:
        np.testing.assert_allclose(theirs[name], ours[name], atol=1e-5)


def more_metrics(message):
    arrays = {name: decode(array) for name, array in message.content["arrays"].items()}
    return reply(message, arrays, {"num-examples": 60, "own": 1.0})


def other_names_of_records(message):
    content = RecordDict({"model": message.content["arrays"], "numbers": MetricRecord({"num-examples": 60})})
    return Message(content, reply_to=message)


def another_order(message):
    arrays = {name: decode(array) for name, array in reversed(message.content["arrays"].items())}
    return reply(message, arrays, {"num-examples": 60})


def nothing_to_evaluate_on(message):
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": 0})}), reply_to=message)


@pytest.mark.parametrize("odd", [more_metrics, other_names_of_records, another_order, nothing_to_evaluate_on])
@pytest.mark.parametrize("name", ["FedAvg", "Krum"])
def test_an_odd_client_does_not_end_a_run_of_flowers_strategies(bench, tmp_path, name, odd):
    grid = bench.grid(x503=odd)
    state, *_ = bench.run(tmp_path / "run", grid, rounds=1, strategy=f"flwr.serverapp.strategy:{name}")
    assert state.round == 1
    assert {name: array.shape for name, array in state.arrays.items()} == {n: a.shape for n, a in bench.start.items()}


@pytest.mark.parametrize("name", ["fedavg", "flwr.serverapp.strategy:FedAvg"])
def test_a_federation_that_has_nothing_to_evaluate_on_has_no_loss(bench, tmp_path, name):
    def node(message):
        return bench.client()(message) if is_train(message) else nothing_to_evaluate_on(message)

    *_, run = bench.run(tmp_path / "run", InProcessGrid(dict.fromkeys(NODES, node)), rounds=1, strategy=name)
    assert run.rounds()[0]["loss"] is None
    assert run.rounds()[0]["rejected"] == 0


def test_a_strategy_that_wants_more_clients_than_there_are_ends_in_time(bench, tmp_path):
    wants = {"strategy": "flwr.serverapp.strategy:FedAvg", "strategy_args": '{"min_available_nodes": 9}'}
    with pytest.raises(ParterreError, match=r"more clients than the 3 there are"):
        bench.run(tmp_path / "run", bench.grid(), wait_seconds=0.5, **wants)
