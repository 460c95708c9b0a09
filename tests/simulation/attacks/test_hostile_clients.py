"""Hostile simulated clients: who they are, what they send, and that nobody else is touched."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fl_common.errors import SettingsError
from fl_common.messages.arrays import decode
from fl_common.models.frameworks import keras, tf
from fl_common.settings.schema import Settings, parse
from fl_server.app import serve
from fl_server.store.runs import Run
from fl_simulation.attacks.hostile_clients import alters_updates, hostile_clients, with_hostile
from fl_simulation.attacks.updates import ATTACKS, AttackerView, Moments
from fl_simulation.engine.data.label_noise import MislabelledPool, as_classes, mislabelled
from fl_simulation.engine.data.pool import TRAIN, VALIDATION
from fl_simulation.engine.engine import BatchedEngine
from fl_simulation.grid import SimulatedGrid, failure
from tests.support.simulated_federation import Silent, final, settings_of
from tests.support.strategy_messages import reply

CLIENTS = 10
MODEL = {"w": np.array([1.0, 2.0], np.float32), "seen": np.array(3, np.int64)}


def ran(directory: Path, **settings) -> Run:
    chosen = settings_of(CLIENTS, fraction_evaluate=0.0, **settings)
    run = Run.create(directory, chosen)
    engine = BatchedEngine(chosen, run.append)
    grid = SimulatedGrid(CLIENTS, with_hostile(engine, chosen, CLIENTS, run.append))
    serve(grid, chosen, run, observer=Silent())
    return run


def attacked(name, trained, *, scale=1.0, honest=()):
    moments = Moments()
    for each in honest:
        moments.add(each)
    return ATTACKS[name](MODEL, trained, AttackerView(scale, np.random.default_rng(0), moments))


# ---- who


def test_the_same_seed_gives_the_same_hostile_clients_and_another_seed_others():
    settings = Settings(hostile=0.2, seed=4)
    clients = hostile_clients(settings, 100)
    assert len(clients) == 20
    assert clients == hostile_clients(settings, 100)
    assert clients != hostile_clients(settings.model_copy(update={"seed": 5}), 100)
    assert clients <= set(range(100))
    assert hostile_clients(Settings(), 100) == frozenset()


def test_a_share_that_is_of_nobody_is_refused():
    with pytest.raises(SettingsError, match=r"hostile=0\.01 of 10 clients is none\. Set it to at least 0\.1"):
        hostile_clients(Settings(hostile=0.01), 10)


def test_an_attack_without_anybody_to_make_it_is_refused():
    with pytest.raises(SettingsError, match="attack=alie needs somebody to attack"):
        parse({"attack": "alie"})
    with pytest.raises(SettingsError, match="needs somebody to attack"):
        parse({"attack_scale": 3})


# ---- what


def test_attacks_worked_out_by_hand():
    trained = MODEL | {"w": np.array([1.5, 1.0], np.float32)}  # an update of (0.5, -1)
    assert attacked("sign_flip", trained)["w"].tolist() == [0.5, 3.0]
    assert attacked("sign_flip", trained, scale=4)["w"].tolist() == [-1.0, 6.0]
    assert attacked("scale", trained, scale=10)["w"].tolist() == [6.0, -8.0]
    assert np.isnan(attacked("nan", trained)["w"]).all()
    # the honest: 1 and 3, 2 and 2: means 2 and 2, deviations 1 and 0
    honest = [MODEL | {"w": np.array(each, np.float32)} for each in ([1, 2], [3, 2])]
    assert attacked("alie", trained, scale=1.5, honest=honest)["w"].tolist() == [0.5, 2.0]
    assert attacked("alie", trained)["w"].tolist() == trained["w"].tolist()  # with nobody to look at
    noise = attacked("gaussian", trained, scale=100)["w"] - MODEL["w"]
    assert 1 < np.abs(noise).max() < 1000
    for name in ATTACKS:
        result = attacked(name, trained)
        assert result["seen"] == 3
        assert (result["w"].dtype, result["w"].shape) == (np.float32, (2,))


def test_an_overflow_is_an_infinity_that_the_server_rejects_and_no_warning():
    trained = MODEL | {"w": np.array([3e38, 1.0], np.float32)}
    assert np.isinf(attacked("scale", trained, scale=10)["w"][0])


def test_moments_are_numpys():
    models = [{"w": np.random.default_rng(n).standard_normal((3, 2)).astype(np.float32)} for n in range(5)]
    moments = Moments()
    for each in models:
        moments.add(each)
    stacked = np.stack([each["w"] for each in models]).astype(float)
    np.testing.assert_allclose(moments.mean("w"), stacked.mean(axis=0))
    np.testing.assert_allclose(moments.deviation("w"), stacked.std(axis=0))


class Echo:
    """An engine whose clients train by adding their number; client 2 fails."""

    def answer(self, messages):
        for message in messages:
            client = message.metadata.dst_node_id - 1
            if client == 2:
                yield failure(message, ValueError("boom"))
                continue
            sent = reply(MODEL | {"w": MODEL["w"] + client}, 5, loss=0.5)
            yield type(message)(sent.content, reply_to=message)


def answers(settings, kind="train"):
    from flwr.app import ConfigRecord, Message, RecordDict

    from fl_common.messages.arrays import encode

    events = []
    engine = with_hostile(Echo(), settings, CLIENTS, events.append)
    grid = SimulatedGrid(CLIENTS, engine)
    messages = [
        Message(
            RecordDict({"arrays": encode(MODEL), "config": ConfigRecord({"client": node - 1, "server-round": 1})}),
            dst_node_id=node,
            message_type=kind,
        )
        for node in grid.get_node_ids()
    ]
    got = {}
    for each in grid.send_and_receive(messages):
        got[each.metadata.src_node_id - 1] = None if each.has_error() else decode(each.content["arrays"]["w"])
    return got, events


@pytest.mark.parametrize("attack", ATTACKS)
def test_only_hostile_clients_send_other_models_and_everyone_answers(attack):
    settings = Settings(hostile=0.3, attack=attack, seed=1)
    hostile = hostile_clients(settings, CLIENTS)
    got, events = answers(settings)
    assert sorted(got) == list(range(CLIENTS))
    assert got[2] is None
    changed = {client for client, w in got.items() if w is not None and not np.array_equal(w, MODEL["w"] + client)}
    assert changed == hostile - {2} - ({0} if attack in ("sign_flip", "scale") else set())  # 0 did not move at all
    again, _ = answers(settings)
    assert all(np.array_equal(got[client], again[client], equal_nan=True) for client in got if client != 2)
    (event,) = events
    assert (event["hostile"], event["clients"], event["attack"]) == (3, CLIENTS, attack)


def test_the_little_that_is_enough_looks_at_the_honest_models_only():
    settings = Settings(hostile=0.3, attack="alie", attack_scale=1.0, seed=1)
    hostile = hostile_clients(settings, CLIENTS)
    honest = np.array([MODEL["w"] + client for client in range(CLIENTS) if client not in hostile | {2}])
    expected = honest.mean(axis=0) - honest.std(axis=0)
    got, _ = answers(settings)
    for client in hostile - {2}:
        np.testing.assert_allclose(got[client], expected, rtol=1e-6)


def test_evaluations_are_left_alone():
    got, _ = answers(Settings(hostile=0.9), kind="evaluate")
    assert all(np.array_equal(w, MODEL["w"] + client) for client, w in got.items() if w is not None)


def test_no_hostile_client_is_no_wrapper():
    engine = Echo()
    assert with_hostile(engine, Settings(), CLIENTS, print) is engine
    assert not alters_updates(Settings(hostile=0.5, attack="label_flip"))


# ---- labels


class TwoClients:
    """A pool of two partitions of three examples each."""

    def __init__(self, y):
        self.data = (tf.zeros((6, 2)), tf.convert_to_tensor(y))

    def wrong(self, partitions):
        return {}

    def counts(self, partitions, which):
        return [3] * len(partitions)

    def part(self, partitions, which):
        return self.data, [np.arange(3 * each, 3 * each + 3, dtype=np.int32) for each in partitions]


def labels_of(pool, partitions=(0, 1), which=TRAIN):
    data, rows = pool.part(list(partitions), which)
    return [data[1].numpy()[mine].tolist() for mine in rows]


def test_flipped_labels_are_the_last_class_less_the_label_and_of_hostile_clients_only():
    pool = MislabelledPool(TwoClients(np.array([0, 1, 2, 0, 1, 9], np.uint8)), 10, 0, frozenset({1}), 0.0)
    assert labels_of(pool) == [[0, 1, 2], [9, 8, 0]]
    assert labels_of(pool, which=VALIDATION) == [[0, 1, 2], [0, 1, 9]]
    assert labels_of(pool, [0]) == [[0, 1, 2]]
    assert pool.part([1], TRAIN)[0][1].dtype == tf.uint8
    assert pool.counts([0], TRAIN) == [3]
    one_hot = MislabelledPool(TwoClients(np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 0, 1]]), 3, 0, frozenset({1}), 0.0)
    assert [np.argmax(each, axis=1).tolist() for each in labels_of(one_hot)] == [[0, 1, 2], [2, 2, 1]]
    binary = MislabelledPool(
        TwoClients(np.array([[0], [1], [0], [1], [1], [0]], np.float32)), 2, 0, frozenset({0}), 0.0
    )
    assert labels_of(binary) == [[[1], [0], [1]], [[1], [1], [0]]]


def test_noise_makes_a_share_of_all_labels_another_class_and_the_same_in_every_round():
    y = np.tile(np.arange(10, dtype=np.uint8), 600)
    inside = TwoClients(y)
    inside.part = lambda partitions, which: (
        (tf.zeros((6000, 1)), tf.convert_to_tensor(y)),
        [np.arange(6000, dtype=np.int32)],
    )
    pool = MislabelledPool(inside, 10, 7, frozenset(), 0.25)
    (first,), (second,) = labels_of(pool, [0]), labels_of(pool, [0])
    assert first == second
    assert 0.23 < np.mean(np.array(first) != y) < 0.27
    whole = MislabelledPool(inside, 10, 7, frozenset(), 1.0)
    assert (np.array(labels_of(whole, [0])[0]) != y).all()


def test_labels_that_are_no_classes_are_refused_with_what_they_are():
    with pytest.raises(SettingsError, match=r"classes 0 to 9, or one-hot; the task's y are float32 from 0.5 to 0.5"):
        as_classes(tf.constant([0.5, 0.5]), 10)
    with pytest.raises(SettingsError, match="one array of labels"):
        as_classes({"a": tf.constant([1])}, 10)
    inputs = keras.Input((2,))
    two = keras.Model(inputs, [keras.layers.Dense(2)(inputs), keras.layers.Dense(3)(inputs)])
    with pytest.raises(SettingsError, match="one output of classes"):
        mislabelled(TwoClients(np.zeros(6)), two, Settings(label_noise=0.1), 2)
    pool = TwoClients(np.zeros(6))
    assert mislabelled(pool, two, Settings(hostile=0.5), 2) is pool


# ---- whole runs


def test_a_run_says_who_is_hostile_and_the_mean_is_swayed_but_not_the_median(tmp_path):
    clean = final(ran(tmp_path / "clean", strategy="median"))
    swayed = {}
    for strategy in ("fedavg", "median"):
        run = ran(tmp_path / strategy, strategy=strategy, hostile=0.3, attack="gaussian", attack_scale=100.0)
        (event,) = (each for each in run.events() if each["event"] == "hostile")
        assert (event["hostile"], event["clients"], event["scale"], event["label_noise"]) == (3, 10, 100.0, 0.0)
        swayed[strategy] = max(np.abs(array - clean[name]).max() for name, array in final(run).items())
    assert swayed["median"] < 1 < swayed["fedavg"]


@pytest.mark.slow
def test_the_same_seed_ends_in_the_same_weights_under_attack(tmp_path):
    one, other = (
        final(ran(tmp_path / name, hostile=0.2, attack="alie", label_noise=0.1, seed=3)) for name in ("one", "other")
    )
    assert all(np.array_equal(one[name], other[name]) for name in one)
    clean = final(ran(tmp_path / "clean", seed=3))
    assert any(not np.array_equal(one[name], clean[name]) for name in one)


def test_nothing_of_a_client_that_sends_nan_reaches_the_model(tmp_path):
    run = ran(tmp_path / "nan", hostile=0.2, attack="nan")
    rejected = [event for event in run.events() if event["event"] == "rejected"]
    assert {event["reason"] for event in rejected} == {"not-finite"}
    assert {event["client"] for event in rejected} == set(hostile_clients(run.settings, CLIENTS))
    assert all(np.isfinite(array).all() for array in final(run).values())


def test_flipped_labels_are_what_a_cohort_trains_on(tmp_path):
    clean, flipped = (
        final(ran(tmp_path / str(share), rounds=1, **({"hostile": share, "attack": "label_flip"} if share else {})))
        for share in (0.0, 0.5)
    )
    assert any(not np.array_equal(clean[name], flipped[name]) for name in clean)


@pytest.mark.parametrize("command", [["up", "--clients", "2"], ["run"]])
def test_a_deployed_run_refuses_what_can_only_be_simulated(command):
    arguments = [*command, "--set", "hostile=0.2", "--set", "attack=nan"]
    done = subprocess.run(
        [sys.executable, "-m", "fl_cli.main", *arguments], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2
    assert "hostile can only be simulated, and this is a deployed run" in done.stderr


def test_the_event_is_what_the_documentation_says():
    page = (Path(__file__).parents[3] / "docs" / "reference" / "events.md").read_text()
    assert "## hostile" in page
    assert json.dumps({"event": "hostile"})[1:-1] in page
