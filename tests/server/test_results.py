"""What a run ends with: the metric that counts, the file of the model, the model it began with."""

import re
import sys
import warnings

import numpy as np
import pytest

from fl_client.app import Workplace, make_app
from fl_common.errors import DataError, SettingsError
from fl_common.models.frameworks import keras
from fl_common.models.weights import weights_of
from fl_common.settings.schema import Settings
from fl_common.tasks.task import build, resolve
from fl_server import app
from fl_server.models import keras_file
from fl_server.rounds import stopping
from fl_server.store.disk.npz import write_npz
from fl_server.store.runs import Run
from fl_simulation.engine.engine import BatchedEngine
from fl_simulation.grid import SimulatedGrid
from tests.support.in_process_grid import InProcessGrid, client

TASK = """
import keras, numpy as np

class Own(keras.layers.Layer):
    {layer}
    def call(self, x):
        return x * 1.0

def squared(y_true, y_pred):
    return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)

def build_model():
    model = keras.Sequential([keras.Input((3,)), Own({argument}), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.01), squared, metrics=["mae", keras.metrics.R2Score(name="fit")])
    return model

def load_partition(partition, partitions):
    x = np.random.default_rng(partition).normal(size=(20, 3)).astype("float32")
    return (x, x.sum(1, keepdims=True)), (x[:5], x[:5].sum(1, keepdims=True))

def load_test():
    x = np.random.default_rng(99).normal(size=(20, 3)).astype("float32")
    return {test}
"""
UNSAVABLE = {"layer": "def __init__(self, table): super().__init__(); self.table = table", "argument": "np.ones(3)"}


def task(tmp_path, name="own_task", *, layer="", argument="", test="x, x.sum(1, keepdims=True)"):
    path = tmp_path / f"{name}.py"
    path.write_text(TASK.format(layer=layer, argument=argument, test=test))
    return str(path)


def served(directory, path, simulated, **changes):
    settings = Settings(
        task=path, out=str(directory), **({"partitions": 2, "rounds": 1, "tensorboard": False, "plot": False} | changes)
    )
    run = Run.create(directory, settings)
    told = []

    class Seen:
        on_event = staticmethod(told.append)

        def close(self):
            pass

    if simulated:
        engine = BatchedEngine(settings)
        app.serve(SimulatedGrid(2, engine), settings, run, observer=Seen(), evaluate=engine.test())
    else:
        workplace = make_app(Workplace())
        app.serve(InProcessGrid({5: client(workplace), 6: client(workplace)}), settings, run, observer=Seen())
    return run


@pytest.mark.parametrize("simulated", [True, False], ids=["simulated", "deployed"])
def test_a_model_that_keras_cannot_write_is_found_out_at_once_and_does_not_fail_the_run(tmp_path, simulated):
    run = served(tmp_path / "run", task(tmp_path, "unsavable", **UNSAVABLE), simulated)
    events = [event for event in run.events() if event["event"] in ("started", "warning", "round", "finished")]
    assert [event["event"] for event in events] == ["started", "warning", "round", "finished"]
    assert "model.keras will not be written" in events[1]["text"]
    assert "NotImplementedError: Object Own was created" in events[1]["text"]
    assert events[-1]["model"] is None
    assert events[-1]["model_error"].startswith("NotImplementedError")
    assert run.status == "finished"
    assert run.latest().round == 1
    assert not list(run.directory.glob("*.keras")) + list(run.directory.glob(".*.keras"))


@pytest.mark.parametrize("simulated", [True, False], ids=["simulated", "deployed"])
def test_a_finished_model_names_its_own_objects_and_loads_without_a_warning(tmp_path, simulated):
    name = f"own_task_{simulated}".lower()
    run = served(tmp_path / "run", task(tmp_path, name), simulated, metric="mae", target_accuracy=50.0)
    last = run.events()[-1]
    assert last["custom_objects"] == ["Own", "squared"]
    assert last["stopped"] == "target_accuracy"
    module = sys.modules[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        named = {name: getattr(module, name) for name in last["custom_objects"]}
        model = keras.saving.load_model(last["model"], custom_objects=named)
    assert all(np.array_equal(value, run.latest().arrays[name]) for name, value in weights_of(model).items())


@pytest.mark.parametrize("simulated", [True, False], ids=["simulated", "deployed"])
def test_a_test_set_that_does_not_fit_is_found_before_round_1(tmp_path, simulated):
    path = task(tmp_path, "unfit", test="x[:, :2], x.sum(1, keepdims=True)")
    with pytest.raises(DataError, match=r"load_test\(\) of task .*unfit.* does not fit the model: .*\(3,\).*\(2,\)"):
        served(tmp_path / "run", path, simulated)
    assert Run.open(tmp_path / "run").rounds() == []


def model_of(**compiled):
    inputs = keras.Input((3,))
    outputs = {name: keras.layers.Dense(1, name=name)(inputs) for name in ("age", "sex")}
    several = compiled.pop("several", False)
    model = keras.Model(inputs, outputs if several else outputs["age"])
    model.compile("sgd", "mse", **compiled)
    return model


KNOWN = {
    "strings": (["acc", "AUC"], {"loss", "acc", "AUC"}),
    "functions": ([keras.metrics.mean_absolute_error], {"loss", "mean_absolute_error"}),
    "metrics": ([keras.metrics.AUC(name="area"), keras.metrics.Precision()], {"loss", "area", "precision"}),
}


@pytest.mark.parametrize("case", KNOWN)
def test_the_metrics_of_a_model_are_known_before_it_sees_data(case):
    metrics, names = KNOWN[case]
    known = stopping.reported(model_of(metrics=metrics))
    assert names <= known
    model = model_of(metrics=metrics)
    reported = model.evaluate(np.ones((2, 3)), np.ones((2, 1)), verbose=0, return_dict=True)
    assert reported.keys() <= known


def test_the_metrics_of_several_outputs_are_known():
    model = model_of(several=True, metrics={"age": ["mae"], "sex": [keras.metrics.BinaryAccuracy()]})
    known = stopping.reported(model)
    data = {"age": np.ones((2, 1)), "sex": np.ones((2, 1))}
    assert model.evaluate(np.ones((2, 3)), data, verbose=0, return_dict=True).keys() <= known


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"target_accuracy": 0.9}, "target_accuracy counts the metric accuracy,"),
        ({"target_accuracy": 0.9, "metric": "auc"}, "target_accuracy counts the metric auc,"),
        ({"metric": "f1_score"}, "metric counts the metric f1_score,"),
        ({"keep_best": "accuracy"}, "keep_best counts the metric accuracy,"),
    ],
)
def test_a_metric_that_the_model_does_not_have_is_refused_at_the_start(settings, named):
    with pytest.raises(SettingsError, match=rf"{named} which is not there: the model has acc, loss\. Name .*--set"):
        stopping.check(Settings(**settings), model_of(metrics=["acc"]))


@pytest.mark.parametrize("settings", [{}, {"patience": 3}, {"metric": "acc", "target_accuracy": 0.9}])
def test_one_that_it_has_is_not(settings):
    stopping.check(Settings(**settings), model_of(metrics=["acc"]))


def test_what_only_a_trial_can_tell_is_checked_with_the_first_result():
    class Own(keras.metrics.Metric):
        pass

    assert stopping.reported(model_of(metrics=[Own()])) is None
    state = stopping.State({}, 1, result={"loss": 1.0, "seen": 0.5, "evaluated_on": "test"})
    with pytest.raises(SettingsError, match=r"which is not there: round 1 has loss, seen\."):
        stopping.over(Settings(target_accuracy=0.9), state)
    assert stopping.over(Settings(target_accuracy=0.5, metric="seen:max"), state) == "target_accuracy"
    assert stopping.over(Settings(target_accuracy=0.5, metric="seen:min"), state) == "target_accuracy"
    assert stopping.over(Settings(target_accuracy=0.4, metric="seen:min"), state) is None


@pytest.mark.parametrize("suffix", [".npz", ".keras", ".weights.h5"])
def test_a_run_begins_with_the_weights_of_a_file(tmp_path, suffix):
    path = task(tmp_path, "initial_task")
    model = build(resolve(Settings(task=path)), 4)
    file = tmp_path / f"given{suffix}"
    if suffix == ".npz":
        write_npz(file, weights_of(model))
    elif suffix == ".keras":
        keras_file.save(model, weights_of(model), file)
    else:
        model.save_weights(file)
    fresh = build(resolve(Settings(task=path)), 5)
    settings = Settings(task=path, initial=str(file))
    if suffix != ".npz":
        with pytest.raises(SettingsError, match=r"HDF5 .*--set initial_trusted=true"):
            app.initial(settings, fresh)
        settings = settings.model_copy(update={"initial_trusted": True})
    begun = app.initial(settings, fresh)
    assert all(np.array_equal(value, begun[name]) for name, value in weights_of(model).items())


def test_a_file_of_another_model_or_none_is_a_sentence(tmp_path):
    model = model_of()
    np.savez(tmp_path / "other.npz", x=np.ones(3))
    (tmp_path / "broken.npz").write_bytes(b"no zip")
    (tmp_path / "model.pkl").write_bytes(b"")
    wrong = {
        "gone.npz": "no such file",
        "other.npz": "does not fit the task's model: .*age/kernel",
        "model.pkl": ".npz",
    }
    for name, words in (wrong | {"broken.npz": "cannot be read as weights"}).items():
        with pytest.raises(SettingsError, match=rf"initial={re.escape(str(tmp_path / name))}.*{words}"):
            app.initial(Settings(initial=str(tmp_path / name)), model)
