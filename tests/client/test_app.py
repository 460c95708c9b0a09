"""Whole messages through the ClientApp, as a node hands them over."""

import json
import pickle

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict

from fl_client import app as client_app
from fl_client.app import make_app
from fl_client.workplace import Workplace
from fl_common.errors import ParterreError, SettingsError, TaskError
from fl_common.messages.arrays import decode_record, encode
from fl_common.settings.schema import Settings

TASK = """
import numpy as np
from fl_common.models.frameworks import keras

def build_model():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax", name="top")])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model

def load_partition(partition, partitions):
    if partition == 9:
        raise RuntimeError("the disk of client 9 is gone")
    rng = np.random.default_rng(partition)
    validation = 0 if partition == 1 else 6
    x, y = rng.normal(size=(20 + validation, 4)).astype("float32"), rng.integers(0, 3, 20 + validation)
    if partition == 8:
        y = y + 5
    return (x[:20], y[:20]), (x[20:], y[20:])
"""


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    path = tmp_path_factory.mktemp("task") / "small_task_of_app_tests.py"
    path.write_text(TASK)
    return str(path)


@pytest.fixture(scope="module")
def app():
    return make_app(Workplace())


START = {"top/kernel": np.zeros((4, 3), "float32"), "top/bias": np.zeros(3, "float32")}


def sent(app, kind, settings, *, arrays=None, node=None, **config):
    given = {"server-round": 1, "client": 0, "partition": 0, "partitions": 3, "settings": settings} | config
    config = ConfigRecord({key: value for key, value in given.items() if value is not None})
    content = RecordDict({"arrays": encode(START) if arrays is None else arrays, "config": config})
    context = Context(run_id=1, node_id=7, node_config=node or {}, state=RecordDict(), run_config={})
    return app(Message(content, 7, kind), context).content


def text(task, **changes):
    return json.dumps(Settings(task=task, batch_size=8, **changes).model_dump())


def test_a_train_message_is_answered_with_weights_by_name_and_metrics(app, task):
    reply = sent(app, "train", text(task))
    arrays = {name: array.numpy() for name, array in reply["arrays"].items()}
    assert {name: (array.shape, array.dtype.name) for name, array in arrays.items()} == {
        "top/kernel": ((4, 3), "float32"),
        "top/bias": ((3,), "float32"),
    }
    assert not np.array_equal(arrays["top/kernel"], START["top/kernel"])
    assert set(reply["metrics"]) == {"num-examples", "loss", "accuracy", "seconds"}
    assert reply["metrics"]["num-examples"] == 20


def test_an_evaluate_message_is_answered_with_metrics_only(app, task):
    reply = sent(app, "evaluate", text(task))
    assert set(reply) == {"metrics"}
    assert reply["metrics"]["num-examples"] == 6
    assert reply["metrics"]["loss"] == pytest.approx(np.log(3), abs=1e-6)


def test_without_validation_examples_the_evaluation_says_zero_examples_and_no_metric(app, task):
    reply = sent(app, "evaluate", text(task), partition=1)
    assert set(reply["metrics"]) == {"num-examples", "seconds"}
    assert reply["metrics"]["num-examples"] == 0


def test_the_proximal_term_comes_from_the_message_and_else_from_the_settings(app, task):
    def trained(settings, **config):
        return sent(app, "train", settings, **config)["arrays"]["top/kernel"].numpy()

    free, by_message = trained(text(task)), trained(text(task), **{"proximal-mu": 3.0})
    assert not np.array_equal(free, by_message)
    assert np.array_equal(by_message, trained(text(task, mu=3.0)))
    assert np.array_equal(free, trained(text(task, mu=3.0), **{"proximal-mu": 0.0}))


def test_the_model_and_the_data_of_a_run_are_made_once(task):
    workplace = Workplace()
    app = make_app(workplace)
    for round in (1, 2, 3):
        sent(app, "train", text(task), **{"server-round": round})
        sent(app, "evaluate", text(task), **{"server-round": round})
    (desk,) = workplace._desks.values()
    assert desk.trainer.traces == 2
    assert list(desk._data) == [(0, 3, ())]


def test_two_runs_in_turn_do_not_disturb_each_other(app, task):
    alone = sent(make_app(Workplace()), "train", text(task, seed=1))["arrays"]["top/kernel"].numpy()
    for seed in (1, 2, 1, 3, 1):
        kernel = sent(app, "train", text(task, seed=seed))["arrays"]["top/kernel"].numpy()
    assert np.array_equal(kernel, alone)


def test_the_clients_own_task_wins_over_the_servers(app, task):
    reply = sent(app, "train", text("no_such_task"), node={"task": task, "resident": True})
    assert reply["metrics"]["num-examples"] == 20


def test_a_resident_client_runs_no_code_that_a_server_names(app, task):
    with pytest.raises(TaskError, match="runs no code that a server names"):
        sent(app, "train", text(task), node={"resident": True})


def test_the_clients_own_data_take_the_place_of_the_partition(app, task, tmp_path):
    np.savez(tmp_path / "own.npz", x=np.ones((7, 4), "float32"), y=np.zeros(7, "int64"))
    reply = sent(app, "train", text(task, validation_fraction=0.0), node={"data": str(tmp_path / "own.npz")})
    assert reply["metrics"]["num-examples"] == 7


def test_arrays_of_another_model_are_refused_before_training(app, task):
    for arrays in (encode({"top/kernel": START["top/kernel"]}), encode(START | {"top/bias": np.zeros(4, "float32")})):
        with pytest.raises(TaskError, match="the server's model is not this client's"):
            sent(app, "train", text(task), arrays=arrays)
    nonsense = ArrayRecord({name: Array("float32", (3,), "numpy.ndarray", b"nonsense") for name in START})
    with pytest.raises(ParterreError):
        sent(app, "train", text(task), arrays=nonsense)


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"settings": None}, TaskError, '"settings" must be text; got None'),
        ({"settings": "{"}, TaskError, '"settings" must be JSON'),
        ({"settings": "[]"}, TaskError, "must be a JSON object"),
        ({"settings": '{"batchsize": 3}'}, SettingsError, "Did you mean batch_size"),
        ({"client": None}, TaskError, '"client" must be an integer from 0 up; got None'),
        ({"partition": -1}, TaskError, '"partition" must be an integer from 0 up; got -1'),
        ({"proximal-mu": -1.0}, TaskError, '"proximal-mu" must be a number from 0 up; got -1.0'),
    ],
)
def test_a_malformed_message_is_refused_with_what_was_expected_and_what_came(app, task, config, error, message):
    with pytest.raises(error, match=message):
        sent(app, "train", **({"settings": text(task)} | config))


def test_a_message_without_arrays_is_refused(app):
    context = Context(run_id=1, node_id=7, node_config={}, state=RecordDict(), run_config={})
    with pytest.raises(TaskError, match='needs an ArrayRecord "arrays"'):
        app(Message(RecordDict(), 7, "train"), context)


def test_an_exception_of_a_users_code_leaves_the_app_and_the_next_message_is_served(app, task):
    with pytest.raises(RuntimeError, match="the disk of client 9 is gone"):
        sent(app, "train", text(task), partition=9, partitions=10)
    with pytest.raises(ParterreError):
        sent(app, "train", text(task), partition=8, partitions=10)
    assert sent(app, "train", text(task))["metrics"]["num-examples"] == 20


def test_the_reply_can_be_read_back_without_a_copy(app, task):
    from fl_common.messages.arrays import Signature

    reply = sent(app, "train", text(task))
    assert list(decode_record(reply["arrays"], Signature.of(START))) == list(START)


def test_the_app_goes_to_another_process_by_its_name():
    """So that a worker of Ray's, which gets it with each message, keeps the models that it has traced."""
    assert pickle.loads(pickle.dumps(client_app.app)) is client_app.app
