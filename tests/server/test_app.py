"""The ServerApp from settings to a trained model, over a grid in process with real clients."""

import json

import numpy as np
import pytest
from flwr.app import Context, RecordDict

from fl_client.app import Workplace, make_app
from fl_common.errors import DataError, RoundError, StoreError, StrategyError, TaskError
from fl_common.models.frameworks import keras
from fl_common.models.weights import weights_of
from fl_common.settings.schema import Settings
from fl_common.tasks.builtin import digits
from fl_server import app
from fl_server.store.runs import Run
from tests.support.in_process_grid import InProcessGrid, client, lost

COMMON = {"task": "digits", "partitions": 2, "rounds": 3, "local_epochs": 3, "seed": 7}


@pytest.fixture(scope="module")
def clients():
    return make_app(Workplace())


def federation(clients):
    return InProcessGrid({5: client(clients, resident=True), 6: client(clients, resident=True)})


def serve(grid, directory, **changes):
    settings = Settings(**(COMMON | {"out": str(directory)} | changes))
    run = app.open_run(settings)
    app.serve(grid, settings, run)
    return run


@pytest.fixture(scope="module")
def finished(clients, tmp_path_factory):
    return serve(federation(clients), tmp_path_factory.mktemp("runs") / "whole")


def kinds(run):
    return [event["event"] for event in run.events()]


def test_a_run_leaves_a_trained_model_a_picture_and_a_history(finished):
    assert kinds(finished) == ["started", "round", "round", "round", "finished"]
    assert finished.status == "finished"
    last = finished.events()[-1]
    model = keras.models.load_model(last["model"])
    x, y = digits.load()[1]
    loss, accuracy = model.evaluate(x, y, verbose=0)
    assert accuracy == pytest.approx(last["accuracy"], abs=1e-6)
    assert loss == pytest.approx(last["loss"], rel=1e-4)
    assert accuracy > 0.5
    assert (finished.directory / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert last["plot"] == str(finished.directory / "plot.png")
    assert list((finished.directory / "tensorboard").rglob("events.*"))
    checkpoint = finished.latest().arrays
    assert all(np.array_equal(array, checkpoint[name]) for name, array in weights_of(model).items())


def test_the_first_event_says_what_is_learned(finished):
    first = finished.events()[0]
    assert (first["task"], first["strategy"], first["rounds"], first["seed"]) == ("digits", "fedavg", 3, 7)
    assert first["parameters"] == 64 * 10 + 10 + 10 * 10 + 10
    assert first["bytes"] == 4 * first["parameters"]
    assert first["resumed_from"] is None


def test_events_are_told_on_standard_output_too(clients, tmp_path, capfd):
    run = serve(federation(clients), tmp_path / "run", rounds=1, tensorboard=False, plot=False)
    told = [json.loads(line) for line in capfd.readouterr().out.splitlines() if line.startswith('{"event"')]
    assert [event for event in told if event["event"] != "replied"] == run.events()
    assert told[-1]["plot"] is None
    assert not (tmp_path / "run" / "tensorboard").exists()
    assert not (tmp_path / "run" / "plot.png").exists()


class Raising:
    """An observer that fails at every event, and once more when it is closed."""

    def __init__(self):
        self.asked = 0

    def on_event(self, event):
        self.asked += 1
        raise BrokenPipeError("nobody reads any more")

    def close(self):
        raise OSError("no space left on device")


def test_an_observer_that_raises_ends_itself_and_not_the_run(tmp_path, caplog):
    observer = Raising()
    settings = Settings(**COMMON | {"out": str(tmp_path / "run"), "tensorboard": False, "plot": False, "rounds": 1})
    run = app.open_run(settings)
    app.serve(federation(make_app(Workplace())), settings, run, observer=observer)
    assert run.status == "finished"
    assert observer.asked == 1
    assert "Raising shows no more of this run, which goes on: BrokenPipeError" in caplog.text


def test_flower_starts_it_with_a_run_config(clients, tmp_path):
    config = Settings(**COMMON | {"out": str(tmp_path / "run"), "rounds": 1, "plot": False, "tensorboard": False})
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=config.run_config())
    app.app(federation(clients), context)
    assert Run.open(tmp_path / "run").status == "finished"


def test_a_run_without_a_directory_gets_one_in_the_store(tmp_path, monkeypatch):
    first = app.open_run(Settings(store=str(tmp_path / "mine")))
    assert first.directory.parent == tmp_path / "mine"
    assert first.settings.out == str(first.directory)
    monkeypatch.setenv("FL_STORE", str(tmp_path / "theirs"))
    assert app.open_run(Settings()).directory.parent == tmp_path / "theirs"  # the server's own store
    assert app.open_run(Settings(store=str(tmp_path / "other"))).directory.parent == tmp_path / "other"


def test_the_files_of_a_task_that_travelled_are_kept_with_its_run(tmp_path, monkeypatch):
    folder = tmp_path / "bundle" / "fl_user_task"
    (folder / "shop").mkdir(parents=True)
    (folder / "shop" / "task.py").write_text("answer = 42\n")
    (folder / "words.json").write_text("[]")
    monkeypatch.setattr(app, "path_of", lambda name: tmp_path / "bundle" / name)
    run = app.open_run(Settings(task="fl_user_task/shop/task.py", store=str(tmp_path / "store")))
    assert run.settings.task == str(run.directory / "task" / "shop" / "task.py")
    assert (run.directory / "task" / "shop" / "task.py").read_text() == "answer = 42\n"
    assert (run.directory / "task" / "words.json").read_text() == "[]"
    assert "-task-fedavg-" in run.name
    assert sorted(Run.open(run.directory).files.seal.sums) == ["task/shop/task.py", "task/words.json"]


def test_a_finished_run_resumed_with_more_rounds_goes_on_to_the_same_bits(finished, clients, tmp_path):
    short = serve(federation(clients), tmp_path / "run", rounds=2, plot=False)
    longer = short.settings.model_copy(update={"resume": True, "rounds": 3})
    app.serve(federation(clients), longer, app.open_run(longer))
    assert kinds(short) == ["started", "round", "round", "finished", "started", "round", "finished"]
    assert short.events()[4]["resumed_from"] == 2
    whole, resumed = finished.latest().arrays, short.latest().arrays
    assert all(np.array_equal(array, resumed[name]) for name, array in whole.items())


BAD = {
    "an unknown task": ({"task": "digitz"}, TaskError, "digits"),
    "a task file that is not there": ({"task": "./none.py"}, TaskError, "none.py"),
    "an unknown model": ({"model": "transformer"}, TaskError, "mlp"),
    "a data directory that is not there": ({"task": "mnist", "data_dir": "/none"}, DataError, "/none"),
    "an unknown strategy": ({"strategy": "fedavgg"}, StrategyError, "fedavg"),
    "an argument that the strategy does not take": ({"strategy_args": '{"eta": 1}'}, StrategyError, "eta"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_beginning_leaves_a_failed_event_and_raises(tmp_path, what):
    changes, kind, named = BAD[what]
    with pytest.raises(kind, match=named) as caught:
        serve(InProcessGrid({}), tmp_path / "run", tensorboard=False, **changes)
    run = Run.open(tmp_path / "run")
    last = run.events()[-1]
    assert (last["event"], last["error"], last["exit_code"]) == ("failed", str(caught.value), 2)
    assert run.status == "failed"


def test_a_run_that_fails_in_the_middle_keeps_its_rounds_and_can_be_resumed(finished, clients, tmp_path):
    grid = federation(clients)
    honest = dict(grid.nodes)

    def dies(number):
        trained = []

        def node(message):
            trained.append(message.metadata.message_type == "train")
            return lost(message) if sum(trained) > 2 else honest[number](message)

        return node

    grid.nodes = {number: dies(number) for number in honest}
    with pytest.raises(RoundError, match="fl resume"):
        serve(grid, tmp_path / "run", max_repeats=0, plot=True)
    run = Run.open(tmp_path / "run")
    assert (run.status, len(run.rounds()), kinds(run)[-1]) == ("failed", 2, "failed")
    assert (tmp_path / "run" / "plot.png").exists()
    again = run.settings.model_copy(update={"resume": True})
    app.serve(federation(clients), again, app.open_run(again))
    assert run.status == "finished"
    resumed = run.latest().arrays
    assert all(np.array_equal(array, resumed[name]) for name, array in finished.latest().arrays.items())


def test_a_directory_that_holds_a_run_is_not_overwritten(finished):
    with pytest.raises(StoreError, match="already holds a run"):
        app.open_run(Settings(**(COMMON | {"out": str(finished.directory)})))


def test_a_run_that_is_being_written_is_left_alone(finished):
    other = Run.open(finished.directory)
    with other.lock(), pytest.raises(StoreError, match="being written"):
        app.serve(InProcessGrid({}), finished.settings, Run.open(finished.directory))
