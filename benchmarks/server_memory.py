"""What the server's part of a run holds in memory, against the size of its model: `fl up`, two clients, over gRPC.

The task's model has the asked size in layers of 3,200 x 3,200; its clients train one step. The ServerApp's anonymous
memory (what no file backs) is read every 20 ms, and the most of each stretch is told in multiples of the model, less
what the process held when it began. Run `python benchmarks/server_memory.py [--mb 200]`; it writes benchmarks/results.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
import psutil

BIN = Path(sys.executable).parent
RESULT = Path(__file__).parent / "results" / "server_memory.json"
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
SIDE = 3200
LOOK_SECONDS = 0.02
TASK = """
import time

import keras
import numpy as np


def build_model():
    layers = [keras.layers.Dense({side}, use_bias=False, name=f"d{{i}}") for i in range({layers})]
    model = keras.Sequential([keras.Input(({side},)), *layers, keras.layers.Dense(2, activation="softmax")])
    model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def load_partition(partition, partitions):
    train = np.random.default_rng(0).random((4, {side}), np.float32), np.array([0, 1, 0, 1])
    return train, train


def callbacks():
    return [keras.callbacks.LambdaCallback(on_train_begin=lambda _: time.sleep(2), on_train_end=lambda _: told())]


def told():
    with open({trained!r}, "a") as file:
        file.write("x")
"""


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mb", type=int, default=200)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help="Only print; leave the written result as it is.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        peaks, events = measured(Path(scratch), options)
    size = next(event["bytes"] for event in events if event["event"] == "started")
    result = machine.facts() | {
        "model_mb": round(size / 1e6, 1),
        "clients": options.clients,
        "peak_mb": {stretch: round(peak / 1e6) for stretch, peak in peaks.items()},
        "peak_in_models": {stretch: round(peak / size, 2) for stretch, peak in peaks.items()},
        "rounds": [event["phases"] for event in events if event["event"] == "round"],
        "how": __doc__,
    }
    print(json.dumps(result, indent=2))
    if not options.keep:
        RESULT.write_text(json.dumps(result, indent=2) + "\n")


def measured(scratch: Path, options: Any) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Run one federation; return the most held in each stretch, and the run's events."""
    task, run = scratch / "large.py", scratch / "run"
    task.write_text(
        TASK.format(side=SIDE, layers=max(1, round(options.mb * 1e6 / 4 / SIDE**2)), trained=str(scratch / "trained"))
    )
    command = [str(BIN / "fl"), "up", "--task", str(task), "--clients", str(options.clients), "--rounds",
               str(options.rounds), "--out", str(run), "--set", "plot=false", "--set", "tensorboard=false",
               "--set", "fraction_evaluate=0", "--json"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | QUIET) as process:
        peaks = watched(process, run, options.clients)
        output = process.stdout.read() if process.stdout else ""
    return peaks, [json.loads(line) for line in output.splitlines() if line.startswith('{"event"')]


def watched(process: "subprocess.Popen[str]", run: Path, clients: int) -> dict[str, int]:
    """Return the most that the ServerApp held, above what it began with, in each stretch of the run."""
    app, first, peaks = None, 0, dict[str, int]()
    while process.poll() is None:
        app = app or serverapp(process.pid, run)
        if app is not None and (now := anonymous(app)):
            first = first or now
            done = rounds(run)
            stretch = f"round {done + 1}, {'replies' if trained(run) > done * clients else 'before a reply'}"
            peaks[stretch] = max(peaks.get(stretch, 0), now - first)
        time.sleep(LOOK_SECONDS)
    return peaks


def serverapp(parent: int, run: Path) -> int | None:
    """Return the process whose output is serverapp.log."""
    wanted = str(run / "logs" / "serverapp.log")
    for child in psutil.Process(parent).children(recursive=True):
        try:
            if str(Path(f"/proc/{child.pid}/fd/1").readlink()) == wanted:
                return int(child.pid)
        except OSError:
            continue
    return None


def anonymous(pid: int) -> int:
    """Return the bytes of a process that no file backs; 0 where it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def rounds(run: Path) -> int:
    """Return how many rounds are committed."""
    path = run / "events.jsonl"
    return path.read_text().count('"event": "round"') if path.exists() else 0


def trained(run: Path) -> int:
    """Return how often a client has trained."""
    path = run.parent / "trained"
    return path.stat().st_size if path.exists() else 0


if __name__ == "__main__":
    main()
