"""Whatever lies in the folder that a command is started in, no process imports it; but a task's own files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import FL, PATIENCE, Start, environment, events
from tests.support.fleet import Fleet

BIN = Path(sys.executable).parent
POISON = """
with open({mark!r}, "a") as file:
    file.write(__file__ + " " + " ".join(__import__("sys").orig_argv))
raise SystemExit(77)
"""
HIDING = ("random", "queue", "keras", "numpy", "logging", "socket", "grpc", "typer", "flwr", "tempfile", "site")
TASK = """
import json
import keras
from pathlib import Path
from parts.model import build
from own_helper import load_partition, load_test

assert json.loads((Path(__file__).parent / "words.json").read_text()) == ["word"]

def build_model():
    return build()
"""
HELPER = """
import numpy as np

def load_partition(partition, partitions):
    x = np.random.default_rng(partition).normal(size=(40, 3)).astype("float32")
    return (x[:30], (x[:30, 0] > 0).astype("int64")), (x[30:], (x[30:, 0] > 0).astype("int64"))

def load_test():
    return load_partition(9, 10)[0]
"""
MODEL = """
import keras

def build():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
"""
KERAS = '{"backend": "torch", "floatx": "float16", "epsilon": 1e-2, "image_data_format": "channels_first"}'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder full of traps, with a task and its helpers in it."""
    folder = tmp_path / "folder"
    (folder / "parts").mkdir(parents=True)
    for name in HIDING:
        (folder / f"{name}.py").write_text(POISON.format(mark=str(tmp_path / "imported")))
    files = {"my-task.py": TASK, "own_helper.py": HELPER, "parts/model.py": MODEL, "words.json": '["word"]'}
    for name, text in files.items():
        (folder / name).write_text(text)
    (tmp_path / "keras").mkdir()
    (tmp_path / "keras" / "keras.json").write_text(KERAS)
    return folder


def run(folder: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    ours = {"KERAS_BACKEND": "torch", "KERAS_HOME": str(folder.parent / "keras")}
    return subprocess.run(
        command, cwd=folder, env=environment(**ours), capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def imported(folder: Path) -> str:
    mark = folder.parent / "imported"
    return mark.read_text() if mark.exists() else ""


@pytest.mark.slow
def test_a_simulation_beside_files_with_the_names_of_libraries(folder: Path) -> None:
    done = run(folder, FL, "simulate", "--task", "my-task.py", "--clients", "4", "--rounds", "1", "--out", "run")
    assert done.returncode == 0, done.stderr + imported(folder)
    assert "KERAS_BACKEND=torch is not used" in done.stderr
    assert imported(folder) == ""


@pytest.mark.slow
def test_no_kind_of_process_imports_what_lies_in_its_folder(folder: Path) -> None:
    up = run(folder, FL, "up", "--task", "my-task.py", "--clients", "2", "--rounds", "1", "--out", "run")
    assert up.returncode == 0, up.stderr + imported(folder)
    again = run(folder, FL, "resume", "run", "--rounds", "2")
    assert again.returncode == 0, again.stderr + imported(folder)
    for name in ("pyproject.toml", "fl_client", "fl_server", "strategies"):
        (folder / name).symlink_to(Path(__file__).parents[2] / name)
    simulated = run(
        folder, str(BIN / "flower-simulation"), "--app", ".", "--num-supernodes", "3", "--run-config", "rounds=1"
    )
    assert simulated.returncode == 0, simulated.stderr + imported(folder)
    exported = run(folder, FL, "export", "run", "--format", "savedmodel")
    assert exported.returncode == 0, exported.stderr + imported(folder)
    assert imported(folder) == ""


@pytest.mark.slow
def test_a_task_with_helpers_goes_to_a_server_in_such_a_folder_and_its_run_is_resumed_there(
    folder: Path, tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    fleet = Fleet(start, tmp_path)
    fleet.client("client-0", "--task", "my-task.py")
    task = ("--task", "my-task.py", "--rounds", "1", "--set", "min_clients=1")
    without = fleet.run(*task)
    assert without.returncode != 0
    assert "submit it again with --include words.json" in without.stderr.lower()
    done = fleet.run(*task, "--include", "words.json")
    assert done.returncode == 0, done.stderr
    assert "sending my-task.py, own_helper.py, parts/model.py, words.json (" in done.stderr
    finished = Path(json.loads(done.stdout.splitlines()[-1])["run_dir"])
    assert sorted(each.name for each in (finished / "task").iterdir()) == [
        "my-task.py",
        "own_helper.py",
        "parts",
        "words.json",
    ]
    for name in ("my-task.py", "own_helper.py", "words.json"):
        (folder / name).unlink()
    again = run(folder, FL, "resume", str(finished), "--rounds", "2")
    assert again.returncode == 0, again.stderr
    assert [event["round"] for event in events(finished, "round")] == [1, 2]
    assert imported(folder) == ""
