"""A client's own data: read and checked before it joins, once, and whatever its file is made of."""

import gc
import json
import os
import signal
import threading
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from PIL import Image

from fl_client.job import Home, Job
from fl_client.own_data import Interrupted, OwnData
from fl_client.process import ClientOptions, Stop, _told
from fl_client.workplace import TaskInUse, Workplace
from fl_common.errors import DataError, TaskError
from fl_common.models.weights import weights_of
from fl_common.settings.schema import Settings
from fl_common.tasks.client_data import files, tables
from fl_common.tasks.client_data.data_names import Schema, parse
from fl_common.tasks.client_data.files import DataOptions

TASK = """
import keras

def build_model():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, activation="softmax", name="top")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model

def load_partition(partition, partitions):
    raise AssertionError("a client with data of its own needs no partition")

def prepare(frame):
    return frame.assign(sex=frame["sex"] == "f") if "sex" in frame else frame
"""


@pytest.fixture
def task(tmp_path):
    (tmp_path / "small_task_of_own_data.py").write_text(TASK)
    return str(tmp_path / "small_task_of_own_data.py")


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "own.csv"
    pd.DataFrame({"sex": list("fmfm") * 3, "age": range(12), "label": [0, 1] * 6}).to_csv(path, index=False)
    return path


@pytest.fixture
def reads(monkeypatch):
    """Counts how often a file is read."""
    counted = []
    read = files.read
    monkeypatch.setattr(files, "read", lambda *given, **named: counted.append(1) or read(*given, **named))
    return counted


def job(home, columns=(), **settings):
    return Job(ArrayRecord(), Settings(**settings), home, 1, 0, 0, 1, 0.0, columns, packed=False)


def test_good_data_are_read_once_for_the_look_before_joining_and_the_first_run(task, table, reads):
    home, workplace = Home(task=task, data=str(table), resident=True), Workplace()
    schema = workplace.examine(home)
    assert schema == Schema(
        {"sex": "boolean", "age": "integer"}, "label", {"sex": "text", "age": "integer", "label": "integer"}
    )
    desk = workplace._desk(job(home))
    (x, y), (_, held) = desk.data(job(home))
    assert (x.shape, len(y), len(held), len(reads)) == ((10, 2), 10, 2, 1)
    assert desk.data(job(home))[0][0] is x
    reordered, _ = desk.data(job(home, ("age", "sex")))
    assert np.array_equal(reordered[0], x[:, ::-1])


def test_a_client_knows_its_own_names_again_where_a_server_has_hashes_only(task, table):
    home, workplace = Home(task=task, data=str(table), resident=True), Workplace()
    own = workplace.examine(home)
    workplace.salt = b"salt"
    told = parse(own.hashed(workplace.salt).text())
    assert workplace.own_names(list(told.columns), home) == ["sex", "age"]
    in_order = workplace._with_own_names(job(home, tuple(reversed(told.columns)), id_column="nobody"))
    assert in_order.columns == ("age", "sex")
    assert workplace.own_names(["of another"], home) == ["of another"]


@pytest.mark.parametrize(
    ("write", "error", "words"),
    [
        (lambda path: path.write_text("sex,age,label\nf,1,7\n"), DataError, "labels must be integers in"),
        (lambda path: path.write_text("sex,label\nf,1\n"), DataError, r"inputs of shape \(2,\).*the data have \(1,\)"),
        (lambda path: path.write_text("sex,age,label\nf,,1\n"), DataError, "1 missing values"),
        (lambda path: path.write_text(""), DataError, "cannot be read as csv"),
        (lambda path: path.mkdir(), DataError, "has no sub-folder"),
        (os.mkfifo, DataError, "no regular file"),
    ],
)
def test_data_that_cannot_be_used_are_found_before_the_client_joins(tmp_path, task, write, error, words):
    write(tmp_path / "bad.csv")
    with pytest.raises(error, match=words):
        Workplace().examine(Home(task=task, data=str(tmp_path / "bad.csv"), resident=True))


def test_a_model_that_cannot_be_built_is_found_before_the_client_joins(tmp_path, table):
    (tmp_path / "no_model.py").write_text(TASK.replace("model.compile", "model.nothing"))
    with pytest.raises(TaskError, match=r"the model of task .*no_model\.py cannot be built: AttributeError"):
        Workplace().examine(Home(task=str(tmp_path / "no_model.py"), data=str(table), resident=True))


def test_a_client_without_data_of_its_own_has_nothing_to_examine(tmp_path):
    assert Workplace().examine(Home(task=str(tmp_path / "nothing.py"), resident=True)) == Schema()


def test_a_file_that_failed_is_read_again_only_when_it_has_changed(tmp_path, reads):
    own, path = OwnData(str(tmp_path / "own.csv"), DataOptions()), tmp_path / "own.csv"
    path.write_text("x,label\nred,1\n")
    for _ in range(3):
        with pytest.raises(DataError, match="must hold numbers"):
            own.read()
    assert len(reads) == 1
    path.write_text("x,label\n10,1\n")
    assert own.read().x.tolist() == [[10]]
    assert len(reads) == 2


def test_a_folder_that_failed_is_read_again_when_a_picture_in_it_has_changed(tmp_path, reads):
    own, path = OwnData(str(tmp_path), DataOptions()), tmp_path / "a" / "deep" / "1.png"
    path.parent.mkdir(parents=True)
    path.write_text("no picture")
    for _ in range(2):
        with pytest.raises(DataError, match="cannot be read as an image"):
            own.read()
    Image.new("L", (4, 3)).save(path)
    assert own.read().x.shape == (1, 3, 4)
    assert len(reads) == 2


def test_data_that_do_not_fit_a_runs_model_are_not_read_again_for_each_message(tmp_path, table, reads):
    home, workplace = Home(data=str(table), ignore=("sex",), resident=True), Workplace()
    workplace.examine(home)
    for _ in range(3):
        with pytest.raises(DataError, match=r"inputs of shape \(64,\)"):
            workplace._desk(job(home)).data(job(home))
    assert len(reads) == 1


def test_what_a_failure_held_is_let_go(tmp_path, table, task, monkeypatch):
    class Large(np.ndarray):
        pass

    read = tables.read
    monkeypatch.setattr(tables, "read", lambda *given: [np.zeros(3).view(Large)] and read(*given))
    own = OwnData(str(table), DataOptions())
    with pytest.raises(DataError):
        own.read()
    gc.collect()
    assert not [each for each in gc.get_objects() if isinstance(each, Large)]


def test_a_client_that_is_told_to_stop_leaves_a_share_that_hangs(tmp_path, table, monkeypatch):
    hanging = threading.Event()
    monkeypatch.setattr(files, "read", lambda *_, **__: hanging.wait())
    stop = Stop()
    threading.Thread(target=stop.set).start()
    with pytest.raises(Interrupted):
        OwnData(str(table), DataOptions(), stop).read()
    hanging.set()


def test_a_signal_ends_what_a_client_does_before_it_joins_and_nothing_later():
    stop = Stop()
    before = signal.signal(signal.SIGUSR1, lambda number, frame: stop.heard(number))
    try:
        with pytest.raises(Interrupted), stop.at_once():
            signal.raise_signal(signal.SIGUSR1)
        assert stop.is_set()
        signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_paths_never_come_from_the_wire_to_a_resident_client(tmp_path):
    settings = Settings(task="mnist", data_dir="/home/somebody", store="/etc", out="/etc")
    told = Job.of(
        Message(
            RecordDict(
                {
                    "arrays": ArrayRecord(),
                    "config": ConfigRecord(
                        {
                            "settings": json.dumps(settings.model_dump()),
                            "server-round": 1,
                            "client": 0,
                            "partition": 0,
                            "partitions": 1,
                        }
                    ),
                }
            ),
            7,
            "train",
        ),
        Context(1, 7, {"resident": True, "data_dir": str(tmp_path)}, RecordDict(), {}),
    )
    with pytest.raises(DataError, match=f"data_dir {tmp_path} has no train-images"):
        TaskInUse(told.settings, told.home, None).data(told)
    assert told.home.paths() == {"data_dir": str(tmp_path), "store": "", "out": ""}


@pytest.mark.parametrize("secret", ["", "the sites share it"])
def test_a_private_schema_leaves_the_client_as_hashes(secret):
    schema = Schema({"insurance": "number"}, "ill", {"insurance": "text"})
    options = ClientOptions("127.0.0.1:1", private_schema=True, schema_secret=secret)
    told = _told(options, None, workplace := Workplace(), schema)
    assert not [name for name in ("insurance", "ill") if name in told]
    assert parse(told) == schema.hashed(secret.encode())
    assert workplace.salt == secret.encode()
    assert "insurance" in _told(ClientOptions("127.0.0.1:1"), None, Workplace(), schema)
    assert _told(options, None, Workplace(), Schema()) == ""
    assert (
        parse(_told(replace(options, data="own.npz"), None, Workplace(), Schema())) == Schema()
    )  # only that it has some


@pytest.mark.parametrize("shut", ["own.csv", "", "pictures", "pictures/cat", "pictures/cat/deep"])
def test_data_that_this_user_may_not_read_are_named_with_who_may_not(tmp_path, monkeypatch, shut):
    (tmp_path / "pictures" / "cat" / "deep").mkdir(parents=True)
    Image.new("L", (2, 2)).save(tmp_path / "pictures" / "cat" / "one.png")
    pd.DataFrame({"age": [1, 2], "label": [0, 1]}).to_csv(tmp_path / "own.csv", index=False)
    for parent in tmp_path.parents[:-2]:
        parent.chmod(parent.stat().st_mode | 0o711)
    (tmp_path / shut).chmod(0o600 if shut.endswith("csv") else 0o700)
    path = tmp_path / ("pictures" if shut.startswith("pictures") else "own.csv")
    if os.geteuid():
        (tmp_path / shut).chmod(0)
    else:
        os.seteuid(65534)
    try:
        with pytest.raises(
            DataError, match=r"cannot be read: Permission denied\. Let this user \(\d+\) read it"
        ) as caught:
            files.read(path, DataOptions())
    finally:
        os.seteuid(os.getuid())
        (tmp_path / shut).chmod(0o700)
    assert (caught.value.exit_code, caught.value.disclosable.count(str(tmp_path))) == (2, 0)


def test_booleans_train_a_model(tmp_path):
    (tmp_path / "bools.py").write_text(
        TASK.replace('raise AssertionError("a client with data of its own needs no partition")', "return part, part")
        + "import pandas as pd\npart = pd.DataFrame({'a': [True, False], 'b': [False, True]}), [0, 1]\n"
    )
    desk = TaskInUse(Settings(task=str(tmp_path / "bools.py")), home := Home(), None)
    train, _ = desk.data(job(home))
    weights = weights_of(desk.trainer.model)
    assert desk.trainer.train(weights, train, round=1, client=0).examples == 2
