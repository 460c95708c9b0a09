"""`fl up` as a person runs it: real server, real clients, real training, over gRPC on loopback."""

import json
import os
import signal
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.integration.conftest import FL, Start, descendants, environment, events, fl, gone, stop, until

SMALL = ("--clients", "2", "--set", "local_epochs=2", "--set", "batch_size=64")
TASK = Path(__file__).parents[2] / "examples" / "my_task.py"


def weights(run: Path, number: int) -> dict[str, bytes]:
    with zipfile.ZipFile(run / "checkpoints" / f"{number:04d}" / "arrays.npz") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def careless_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("careless_umask")
def test_a_federation_trains_and_leaves_a_model_a_plot_and_a_history(tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = fl(
        "up", "--task", "digits", "--clients", "4", "--rounds", "4", "--seed", "7", "--out", str(out), "--json",
        "--set", "local_epochs=5", "--set", "partitioning=dirichlet", "--set", "alpha=1.0",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    assert printed == events(out)
    rounds = [event for event in printed if event["event"] == "round"]
    assert [event["round"] for event in rounds] == [1, 2, 3, 4]
    assert all(event["cohort"] == event["replies"] == 4 and event["rejected"] == 0 for event in rounds)
    assert all(event["bytes_up"] > 0 and event["bytes_down"] > 0 and event["seconds"] > 0 for event in rounds)
    assert rounds[-1]["loss"] < rounds[0]["loss"]
    finished = printed[-1]
    assert finished["event"] == "finished"
    assert finished["accuracy"] > 0.8
    assert Path(finished["model"]).stat().st_size > 1000
    assert (out / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert list((out / "tensorboard").iterdir())
    assert not (out / ".flower").exists()
    assert not [path for path in (out, *out.rglob("*")) if path.stat().st_mode & 0o022], "others could write it"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_everything_that_it_started(tmp_path: Path, start: Start, number: int) -> None:
    out = tmp_path / "run"
    up = start(FL, "up", *SMALL, "--rounds", "1000", "--out", str(out))
    until(lambda: events(out, "round"), "the first round", up)
    family = descendants(up.pid)
    assert len(family) >= 4
    assert stop(up, number) == 128 + number
    assert gone(family)
    assert not (out / ".flower").exists()


def test_ctrl_c_while_everything_is_still_imported_leaves_one_line_and_no_run(tmp_path: Path) -> None:
    out = tmp_path / "run"
    up = subprocess.Popen(
        [FL, "up", *SMALL, "--out", str(out)], stderr=subprocess.PIPE, text=True, env=environment(),
        start_new_session=True,
    )  # fmt: skip
    until(lambda: len(descendants(up.pid)) >= 2, "the helpers", up)
    family = descendants(up.pid)
    os.killpg(up.pid, signal.SIGINT)  # as a terminal sends it: to all
    _, err = up.communicate(timeout=300)
    assert (up.returncode, err) == (130, "stopped before the run began\n")
    assert not out.exists()
    until(lambda: gone(family), "the end of every process")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fedavg", "fedadam"])
def test_a_killed_run_resumes_to_the_weights_of_one_never_interrupted(
    tmp_path: Path, start: Start, strategy: str
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    common = ("up", *SMALL, "--rounds", "6", "--seed", "3", "--strategy", strategy)
    assert fl(*common, "--out", str(whole)).returncode == 0
    up = start(FL, *common, "--out", str(broken))
    until(lambda: len(events(broken, "round")) >= 2, "two rounds", up)
    family = descendants(up.pid)
    up.kill()
    until(lambda: gone(family), "the end of every process")
    assert not (broken / "model.keras").exists()
    done = fl("resume", str(broken))
    assert done.returncode == 0, done.stderr
    assert weights(broken, 6) == weights(whole, 6)
    assert [event["round"] for event in events(broken, "round")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_a_run_goes_on_when_a_client_is_killed_in_the_middle_of_training(tmp_path: Path, start: Start) -> None:
    out = tmp_path / "run"
    up = start(
        FL, "up", "--clients", "3", "--rounds", "4", "--out", str(out),
        "--set", "min_clients=1", "--set", "deadline_seconds=60", "--set", "local_epochs=20",
    )  # fmt: skip
    until(lambda: events(out, "round"), "the first round", up)
    client = until(lambda: client_of(up.pid, out), "a client", up)
    client.kill()
    assert up.wait(timeout=240) == 0
    assert events(out)[-1]["event"] == "finished"
    assert events(out)[-1]["rounds"] == 4
    assert {event["reason"] for event in events(out, "rejected")} <= {"late", "error", "lost"}
    said = (tmp_path / "process-0.log").read_text()
    assert "client 0 was killed (SIGKILL" in said
    assert f"log: {out / 'logs' / 'client-0.log'}" in said


def client_of(pid: int, out: Path) -> psutil.Process | None:
    """Return the process that writes the first client's log."""
    log = str(out / "logs" / "client-0.log")
    for each in descendants(pid):
        try:
            if any(file.path == log for file in each.open_files()):
                return each
        except psutil.Error:
            continue
    return None


@pytest.mark.slow
def test_two_runs_at_once_do_not_meet(tmp_path: Path, start: Start) -> None:
    outs = [tmp_path / "one", tmp_path / "two"]
    ups = [start(FL, "up", *SMALL, "--rounds", "3", "--out", str(out)) for out in outs]
    assert [up.wait(timeout=240) for up in ups] == [0, 0]
    assert weights(outs[0], 3) == weights(outs[1], 3)


@pytest.mark.slow
def test_a_task_file_of_ones_own_trains_by_its_path(tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = fl("up", "--task", str(TASK), *SMALL, "--rounds", "2", "--out", str(out))
    assert done.returncode == 0, done.stderr + done.stdout
    assert events(out)[-1]["event"] == "finished"


FAILING = """
import keras, numpy as np

def build_model():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model

def load_partition(partition, partitions):
    if partition == {failing}:
        raise OSError("the shop is closed")
    x = np.random.default_rng(partition).normal(size=(40, 3)).astype("float32")
    return (x[:30], (x[:30, 0] > 0).astype("int64")), (x[30:], (x[30:, 0] > 0).astype("int64"))
"""


@pytest.mark.slow
def test_an_exception_in_a_users_code_costs_that_client_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(FAILING.replace("{failing}", "1"))
    out = tmp_path / "run"
    done = fl("up", "--task", str(tmp_path / "shop.py"), *SMALL, "--rounds", "2", "--out", str(out))
    assert done.returncode == 0, done.stderr
    rejected = events(out, "rejected")
    assert {event["client"] for event in rejected} == {1}
    assert all(event["reason"] == "error" and "OSError (shop.py, line 11)" in event["detail"] for event in rejected)
    assert [event["replies"] for event in events(out, "round")] == [1, 1]


MISTAKES = {
    "an exception": ("partition == {failing}", "True", "OSError (shop.py, line 11)"),
    "the shape of the data": ("(3,)", "(7,)", "takes inputs of shape (7,) for each example; the data have (3,)"),
    "a loss of other labels": ("sparse_cat", "cat", "loss takes labels of shape (2,) for each example; got ()"),
}


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_every_client_does_wrong_alike_ends_the_run_at_once_with_one_message(tmp_path: Path, mistake: str) -> None:
    before, after, text = MISTAKES[mistake]
    (tmp_path / "shop.py").write_text(FAILING.replace(before, after).replace("{failing}", "-1"))
    done = fl("up", "--task", str(tmp_path / "shop.py"), *SMALL, "--rounds", "2", "--out", str(tmp_path / "run"))
    assert done.returncode == 1
    assert (done.stdout + done.stderr).count(text) == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: every client failed alike in round 1, so it is not repeated: ")
    assert events(tmp_path / "run", "repeat") == events(tmp_path / "run", "round") == []
    assert len(events(tmp_path / "run", "rejected")) == 2


@pytest.mark.slow
def test_a_task_that_does_not_import_is_found_before_a_run_begins(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("import keras\nfrom keras import no_such_thing\n")
    done = fl("up", "--task", str(tmp_path / "shop.py"), *SMALL, "--out", str(tmp_path / "run"))
    assert done.returncode == 2
    assert set(done.stdout.splitlines()) <= {"starting the server", "clients are loading: 0/2"}
    assert "shop.py, line 2" in done.stderr
    assert not (tmp_path / "run").exists()
