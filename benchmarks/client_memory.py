"""What a client and a server need in memory, by the size of the model: a real `fl server`, one `fl client`, two rounds.

Each model has its size in square layers without biases; the client trains a few steps of four examples, so that what is
counted is the model's and not the data's. Memory is that of the process and its children which no file backs (the pages
that they share counted once), read ten times a second: what a container is charged with and cannot give back. Programs'
own files, about 0.4 GB, come on top where several processes do not share them, and can be read again where memory is
short. Run `python benchmarks/client_memory.py`; it writes benchmarks/results and the table in
docs/how-to/operate-a-server.md. `--page` writes the page from the result; it measures nothing.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import machine
from fl_server.access import home_files
from fl_server.processes.listening import free_ports

FL = str(Path(sys.executable).parent / "fl")
RESULT = Path(__file__).parent / "results" / "client_memory.json"
PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "operate-a-server.md"
START, END = "<!-- measured:start -->\n", "<!-- measured:end -->\n"
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "PYTHONUNBUFFERED": "1"}
SIZES_MB = (1, 41, 205)
OPTIMIZERS = ("SGD", "Adam")
SIDE = 3200  # a layer of 41 MB
PATIENCE = 600.0
LOOK_SECONDS = 0.1
KINDS = ("Pss_Anon:", "Pss_Shmem:")
TASK = """
import keras
import numpy as np


def build_model():
    layers = [keras.layers.Dense({side}, use_bias=False, name=f"d{{i}}") for i in range({layers})]
    model = keras.Sequential([keras.Input(({side},)), *layers, keras.layers.Dense(2, activation="softmax")])
    model.compile(keras.optimizers.{optimizer}(), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def load_partition(partition, partitions):
    train = np.random.default_rng(0).random((32, {side}), np.float32), np.arange(32) % 2
    return train, train
"""


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, nargs="+", default=SIZES_MB)
    parser.add_argument("--page", action="store_true", help="write the page from the result; measures nothing")
    options = parser.parse_args()
    if not options.page:
        facts: dict[str, Any] = machine.facts() | {"rows": []}
        for mb in options.mb:
            for optimizer in OPTIMIZERS:
                with tempfile.TemporaryDirectory() as scratch:
                    facts["rows"].append(measured(Path(scratch), mb, optimizer))
                print(json.dumps(facts["rows"][-1]), flush=True)
        RESULT.write_text(json.dumps(facts, indent=1) + "\n")
    PAGE.write_text(page(PAGE.read_text(), json.loads(RESULT.read_text())))


def measured(scratch: Path, mb: int, optimizer: str) -> dict[str, Any]:
    """Run one federation of two rounds; return what client and server held at rest and at most, in MB."""
    side = min(SIDE, math.isqrt(mb * 250_000))
    task = scratch / "large.py"
    task.write_text(TASK.format(side=side, layers=max(1, round(mb * 250_000 / side**2)), optimizer=optimizer))
    fleet, control, appio = free_ports(3)
    store = scratch / "store"
    ports = ("--fleet-port", str(fleet), "--control-port", str(control), "--appio-port", str(appio))
    with started(scratch / "server.log", "server", "--store", str(store), *ports) as server:
        until(lambda: "server is up" in (scratch / "server.log").read_text(), "the server", server)
        token = home_files.enrolment_token(home_files.existing(store / ".superlink"), uses=1, seconds=600.0).text
        state = ("--state", str(scratch / "state"), "--task", str(task))
        where = ("--server", f"127.0.0.1:{fleet}")
        with started(scratch / "client.log", "client", *where, *state, FL_ENROLL_TOKEN=token) as client:
            until(lambda: "joined" in (scratch / "client.log").read_text(), "the client", client)
            rest = held(server.pid), held(client.pid)
            most = watched(scratch, control, task, server, client)
    started_with = next(event for event in events(store) if event["event"] == "started")
    return {
        "model_mb": round(started_with["bytes"] / 1e6, 1),
        "optimizer": optimizer,
        **{
            name: {"rest_mb": round(low / 1e6), "peak_mb": round(high / 1e6)}
            for name, low, high in zip(("server", "client"), rest, most, strict=True)
        },
    }


def watched(
    scratch: Path, control: int, task: Path, server: "subprocess.Popen[str]", client: "subprocess.Popen[str]"
) -> tuple[int, int]:
    """Run `fl run` to its end; return the most that server and client held meanwhile."""
    command = ("run", "--server", f"127.0.0.1:{control}", "--store", str(scratch / "store"), "--task", str(task),
               "--rounds", "2", "--set", "min_clients=1", "--set", "batch_size=4", "--set", "plot=false",
               "--set", "tensorboard=false", "--json")  # fmt: skip
    most = (0, 0)
    with started(scratch / "run.log", *command) as run:
        while run.poll() is None:
            most = max(most[0], held(server.pid)), max(most[1], held(client.pid))
            time.sleep(LOOK_SECONDS)
    if run.returncode:
        raise SystemExit(f"the run ended with exit code {run.returncode}: {(scratch / 'run.log').read_text()[-2000:]}")
    return most


def held(pid: int) -> int:
    """Return the bytes of a process and its children that no file backs, shared pages counted once."""
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    return sum(map(_anonymous, processes))


def _anonymous(process: psutil.Process) -> int:
    try:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(KINDS))


@contextmanager
def started(log: Path, *arguments: str, **more: str) -> "Iterator[subprocess.Popen[str]]":
    """Start a command of `fl`, and end it."""
    with log.open("w") as file:
        process = subprocess.Popen(
            [FL, *arguments], stdout=file, stderr=subprocess.STDOUT, text=True, env=os.environ | QUIET | more
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def until(condition: Callable[[], bool], what: str, process: "subprocess.Popen[str]") -> None:
    """Wait for a condition."""
    limit = time.monotonic() + PATIENCE
    while not condition():
        if process.poll() is not None or time.monotonic() > limit:
            raise SystemExit(f"waited for {what} in vain")
        time.sleep(LOOK_SECONDS)


def events(store: Path) -> list[dict[str, Any]]:
    """Return the events of the only run."""
    (log,) = store.glob("*/events.jsonl")
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


def table(result: dict[str, Any]) -> str:
    """Return the page's part on the figures."""
    on, versions = result["machine"], result["versions"]
    lines = [
        "| model, MB | optimizer | client at rest | at most | server at rest | at most |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row['model_mb']:g} | {row['optimizer']} | {row['client']['rest_mb']} | {row['client']['peak_mb']} "
            f"| {row['server']['rest_mb']} | {row['server']['peak_mb']} |"
            for row in result["rows"]
        ),
        "",
        f"Each MB of model more costs the client {growth(result['rows'], 'client')} MB, "
        f"and all of the server's processes {growth(result['rows'], 'server')} MB.",
        "",
        f"`python benchmarks/client_memory.py`: {result['date']}, {on['cpu']}, {on['cores']} cores, "
        f"tensorflow {versions.get('tensorflow-cpu') or versions.get('tensorflow')}, flwr {versions['flwr']}, "
        f"commit {result['commit']}.",
    ]
    return "\n".join(lines) + "\n"


def growth(rows: list[dict[str, Any]], name: str) -> str:
    """Return what each MB of model adds to the most that a process holds, between the two largest models."""
    found = []
    for optimizer in OPTIMIZERS:
        less, more = [row for row in rows if row["optimizer"] == optimizer][-2:]
        added = (more[name]["peak_mb"] - less[name]["peak_mb"]) / (more["model_mb"] - less["model_mb"])
        found.append(f"{added:.1f} ({optimizer})")
    return " or ".join(found)


def page(text: str, result: dict[str, Any]) -> str:
    """Return the page's text with the figures between their markers."""
    before, _, rest = text.partition(START)
    return before + START + table(result) + END + rest.partition(END)[2]


if __name__ == "__main__":
    main()
