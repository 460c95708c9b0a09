"""Nothing that an exception says of a client's data leaves it: marked data go through every failure, to no avail."""

import gc
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from flwr.app import Context, RecordDict
from PIL import Image

from fl_client import app as client_app
from fl_client.failure import failed
from fl_common.settings.schema import Settings
from fl_server import app as server_app
from tests.support.in_process_grid import InProcessGrid

TEXT, NUMBER = "Smith-HIV", 987654321  # the marks: in cells, names, labels and whatever code says of them

TASK = """
import keras
import numpy as np
from fl_common.errors import DataError, Shown

MARK = "Smith-HIV"

class Model(keras.Model):
    def __init__(self):
        inputs = keras.Input((1,))
        super().__init__(inputs, keras.layers.Dense(3, activation="softmax", name="top")(inputs))

class Named(Exception):
    pass

class Mute(Exception):
    def __str__(self):
        raise ValueError(MARK)

def build_model():
    model = Model()
    model.compile("sgd", loss, metrics=["accuracy"], run_eagerly=True)
    return model

def loss(y, p):
    return keras.losses.sparse_categorical_crossentropy(y, p)

def load_partition(partition, partitions):
    return (np.ones((4, 1), "float32"), np.zeros(4, int)), (np.ones((2, 1), "float32"), np.zeros(2, int))

def fail(error):
    raise error
"""

IN_CODE = {
    "import": "fail(ValueError(MARK))",
    "syntax": "exec(MARK + ' = = 1')",
    "no model": "build_model = lambda: MARK",
    "not compiled": "build_model = Model",
    "model": "build_model = lambda: fail(KeyError(MARK))",
    "partition": "load_partition = lambda *_: fail(ValueError(f'could not convert string to float: {MARK}'))",
    "partition of another kind": "load_partition = lambda *_: MARK",
    "examples of another kind": "load_partition = lambda *_: (MARK, None)",
    "objects": "load_partition = lambda *_: ((np.array([{MARK: 1}]), np.zeros(1)), None)",
    "a scalar": "load_partition = lambda *_: ((np.array(MARK), np.zeros(1)), None)",
    "ragged": "load_partition = lambda *_: (([[987654321], [1, 2]], np.zeros(2)), None)",
    "lengths": "load_partition = lambda *_: ((np.zeros((2, 1)), np.zeros(3)), None)",
    "no example": "load_partition = lambda *_: ((np.zeros((0, 1)), np.zeros(0)), None)",
    "text": "load_partition = lambda *_: ((np.array([[MARK]]), np.zeros(1, int)), None)",
    "labels": "loss = 'sparse_categorical_crossentropy'\n"
    "load_partition = lambda *_: ((np.zeros((1, 1), 'float32'), np.array([987654321])), None)",
    "our error, raised by a user": "load_partition = lambda *_: fail(DataError(MARK))",
    "with fields": "load_partition = lambda *_: fail(DataError(MARK + ' {x}', x=Shown(MARK)))",
    "shared": "load_partition = lambda *_: fail(DataError.shared(MARK))",
    "a type made while running": "load_partition = lambda *_: fail(type(MARK, (Named,), {})())",
    "no text": "load_partition = lambda *_: fail(Mute())",
    "exit": "import sys\nload_partition = lambda *_: sys.exit(MARK)",
    "interrupt": "load_partition = lambda *_: fail(KeyboardInterrupt(MARK))",
    "a group": "load_partition = lambda *_: fail(BaseExceptionGroup(MARK, [ValueError(MARK)]))",
    "a lost call": "import grpc\nload_partition = lambda *_: fail(type('Lost', (grpc.RpcError,), {})(MARK))",
    "training": "Model.train_step = lambda *_: fail(ValueError(MARK))",
    "evaluation": "Model.test_step = lambda *_: fail(ValueError(MARK))",
    "loss": "def loss(y, p):\n    assert len(y) < 2 or fail(RuntimeError(MARK))\n    return keras.ops.sum(p)",
    "layer": "Model.call = lambda *_, **__: fail(RuntimeError(MARK))",
    "callback": "class Back(keras.callbacks.Callback):\n    def on_epoch_end(self, *_):\n        fail(OSError(MARK))\n"
    "callbacks = lambda: [Back()]",
    "callbacks": "callbacks = lambda: fail(ValueError(MARK))",
    "no function": "callbacks = MARK",
    "prepare": "def prepare(frame):\n    raise ValueError(frame['who'][0])",
    "prepare that gives text": "def prepare(frame):\n    return frame.assign(**{MARK: 'x'})",
    "prepare that gives a mixture": "def prepare(frame):\n    return frame.assign(x=[MARK, 1])",
    "a file that is named after somebody": "load_partition = lambda *_: open('/none/' + MARK)",
}


def table(path: Path, **columns) -> Path:
    frame = pd.DataFrame({"x": [1.0, 2.0], "label": [0, 1]} | columns)
    frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_parquet(path)
    return path


def pictures(folder: Path, **files) -> Path:
    for name, write in files.items():
        path = folder / f"class of {TEXT}" / f"{TEXT} {name}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
    return folder


def archive(path: Path, **arrays) -> Path:
    np.savez(path, **arrays)
    return path


def text(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


IN_DATA = {
    "a cell": lambda folder: table(folder / "own.csv", who=[TEXT, "b"]),
    "a label": lambda folder: table(folder / "own.parquet", label=[TEXT, "b"]),
    "a label of the wrong range": lambda folder: table(folder / "own.csv", label=[NUMBER, 1]),
    "missing values": lambda folder: table(folder / "own.csv", **{TEXT: [None, 1.0]}),
    "a column twice": lambda folder: text(folder / "own.csv", f"{TEXT},{TEXT},label\n1,2,0\n"),
    "no label": lambda folder: text(folder / "own.csv", f"{TEXT},x\n1,2\n"),
    "a broken row": lambda folder: text(folder / "own.csv", f"x,label\n1,0\n{TEXT},1,2,3\n"),
    "no parquet": lambda folder: text(folder / f"{TEXT}.parquet", TEXT),
    "another ending": lambda folder: text(folder / f"own.{TEXT}", TEXT),
    "no archive": lambda folder: text(folder / f"{TEXT}.npz", TEXT),
    "other arrays": lambda folder: archive(folder / "own.npz", **{TEXT: np.zeros(3)}),
    "another shape": lambda folder: archive(folder / "own.npz", x=np.full((3, 7), NUMBER), y=np.zeros(3, int)),
    "no picture": lambda folder: pictures(folder / TEXT, one=lambda path: path.write_text(TEXT)),
    "two sizes": lambda folder: pictures(
        folder / TEXT, one=Image.new("L", (4, 3)).save, two=Image.new("L", (3, 4)).save
    ),
    "nothing": lambda folder: folder / TEXT,
}


def failing(tmp_path: Path):
    """Yield the node config of clients that each fail in a way of their own."""
    for number, (name, code) in enumerate(IN_CODE.items()):
        task = text(tmp_path / f"task_{number}.py", f"{TASK}\n{code}\n")
        own = {"data": str(table(tmp_path / f"{number}.csv", who=[TEXT, "b"]))} if "prepare" in name else {}
        yield name, {"task": str(task)} | own
    good = text(tmp_path / "good.py", TASK)
    for number, (name, write) in enumerate(IN_DATA.items()):
        folder = tmp_path / f"data {number} of {TEXT}"
        folder.mkdir()
        yield name, {"task": str(good), "data": str(write(folder))}


def node(config):
    context = Context(run_id=7, node_id=0, node_config=config | {"resident": True}, state=RecordDict(), run_config={})

    def answer(message):
        try:
            return client_app.app(message, context)
        except BaseException as error:  # which Flower's nodes end with, and ours do not
            return failed(message, error)

    return answer


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run in which every client but one fails, and what its clients wrote into their logs."""
    folder = tmp_path_factory.mktemp("site")
    names, configs = zip(*failing(folder), strict=True)
    good = str(folder / "good.py")
    nodes = {number: node(config) for number, config in enumerate(({"task": good}, *configs), start=1)}
    settings = Settings(
        task=good, rounds=1, min_clients=len(nodes), out=str(tmp_path_factory.mktemp("store") / "run"), plot=False
    )
    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(logging.Formatter().format(record))
    logging.getLogger("fl_client").addHandler(handler)
    gc.freeze()  # Keras collects garbage before each of the many models
    try:
        run = server_app.open_run(settings)
        server_app.serve(InProcessGrid(nodes), settings, run)
    finally:
        gc.unfreeze()
        logging.getLogger("fl_client").removeHandler(handler)
    return run, names, "\n".join(told)


def test_no_mark_of_any_failure_is_found_in_anything_at_the_server(run):
    marks = (TEXT.encode(), str(NUMBER).encode())
    files = [path for path in run[0].directory.rglob("*") if path.is_file()]
    assert len(files) > 3
    for path in files:
        content = path.read_bytes()
        assert not any(mark in content for mark in marks), next(
            line for line in content.splitlines() if any(mark in line for mark in marks)
        )


def test_every_client_that_failed_is_told_with_a_type_and_the_hint_where_the_rest_is(run):
    events = {event["node"]: event for event in run[0].events() if event["event"] == "rejected"}
    for number, name in enumerate(run[1], start=2):
        detail = events.pop(str(number))["detail"]
        assert detail.endswith("The client's log has the rest."), name
        assert detail.split(":")[0].split(" ")[0].removesuffix(".").isidentifier(), name
    assert not events


def test_the_place_in_the_users_file_is_told(run):
    details = {name: event["detail"] for event in run[0].events() if event["event"] == "rejected"
               for name in [run[1][int(event["node"]) - 2]]}  # fmt: skip
    line = 1 + len(f"{TASK}".splitlines())
    raised = line - 1
    for name in ("partition", "training", "evaluation", "callback", "model"):
        assert f"task_{list(IN_CODE).index(name)}.py, line {raised}" in details[name], details[name]
    assert details["partition"].startswith("ValueError (task_")
    assert "DataError: column <column> of <path> must hold numbers; got <kind>." in details["a cell"]
    assert "labels must be integers in [0, 2]; got labels from <low> to <high>" in details["labels"]
    assert details["a type made while running"].startswith("Named (")


def test_the_clients_own_log_has_all_of_it(run):
    assert run[2].count(TEXT) > 20
    assert str(NUMBER) in run[2]
