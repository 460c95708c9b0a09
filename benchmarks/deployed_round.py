"""How long a whole round takes, deployed: ours beside the same app on stock Flower processes, in turns, in one run.

Two clients train and evaluate the digits with the model `mlp` (one local epoch, the server's test set as well), over
gRPC on loopback. Ours: `fl up`. Stock: `flwr run` on `flower-superlink` with two `flower-supernode`. The first round of
each run is left out: it traces the model. What is left of our round is broken down from its events.
Run `python benchmarks/deployed_round.py [--rounds 30] [--stock-rounds 3]`; it writes benchmarks/results.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import machine

from fl_server.processes.listening import free_ports

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "deployed_round.json"
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "PATH": f"{BIN}:/usr/bin:/bin"}
PATIENCE = 600


def ours(directory: Path, rounds: int) -> list[dict[str, Any]]:
    """The rounds of one `fl up`, the first left out."""
    command = [str(BIN / "fl"), "up", "--clients", "2", "--rounds", str(rounds + 1), "--out", str(directory), "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | QUIET, timeout=PATIENCE)
    return rounds_of(done.stdout)


def stock(directory: Path, rounds: int) -> list[dict[str, Any]]:
    """The rounds of the same app on stock processes, the first left out."""
    fleet, control, appio, *nodes = free_ports(5)
    home = directory / "cli"
    home.mkdir(parents=True)
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{control}"\ninsecure = true\n'
    )
    link = ["--fleet-api-address", f"127.0.0.1:{fleet}", "--control-api-address", f"127.0.0.1:{control}",
            "--serverappio-api-address", f"127.0.0.1:{appio}", "--disable-runtime-dependency-installation"]  # fmt: skip
    with started(directory, "flower-superlink", "--insecure", *link):
        time.sleep(3)
        node = ["flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{fleet}", "--clientappio-api-address"]
        with (
            started(directory, *node, f"127.0.0.1:{nodes[0]}"),
            started(directory, *node, f"127.0.0.1:{nodes[1]}"),
        ):
            config = f"rounds={rounds + 1} store='{directory / 'runs'}'"
            command = [str(BIN / "flwr"), "run", ".", "here", "--stream", "--run-config", config]
            environment = os.environ | QUIET | {"FLWR_HOME": str(home)}
            done = subprocess.run(
                command, check=True, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=PATIENCE
            )
    return rounds_of(done.stdout)


def rounds_of(output: str) -> list[dict[str, Any]]:
    """The round events among a command's lines, the first left out."""
    events = [json.loads(line) for line in output.splitlines() if line.startswith('{"event"')]
    return [event for event in events if event["event"] == "round"][1:]


@contextmanager
def started(directory: Path, *command: str) -> Any:
    """A process in the background, with its children, until the block ends."""
    home = Path(tempfile.mkdtemp(dir=directory))
    process = subprocess.Popen(
        [str(BIN / command[0]), *command[1:]],
        env=os.environ | QUIET | {"FLWR_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--stock-rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        first = ours(Path(scratch) / "a", options.rounds // 2)
        theirs = stock(Path(scratch) / "stock", options.stock_rounds)
        rounds = first + ours(Path(scratch) / "b", options.rounds // 2)
    result = machine.facts() | {
        "ours_seconds": [event["seconds"] for event in rounds],
        "stock_seconds": [event["seconds"] for event in theirs],
        "ours_median_s": machine.median([event["seconds"] for event in rounds]),
        "stock_median_s": machine.median([event["seconds"] for event in theirs]),
        "ratio": round(median(e["seconds"] for e in theirs) / median(e["seconds"] for e in rounds), 1),
        "ours_phases_median_s": {
            phase: machine.median([event["phases"][phase] for event in rounds], 4) for phase in rounds[0]["phases"]
        },
        "inside_the_phases_median_s": inside(rounds),
        "how": __doc__,
    }
    print(json.dumps(result, indent=2))
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


def inside(rounds: list[dict[str, Any]]) -> dict[str, float]:
    """What clients compute inside the phases; the rest of a phase is calls, serialisation and polling."""
    each = [event["inside"] for event in rounds]
    return {
        "slowest client trains": machine.median([inside["clients_train"][-1] for inside in each], 4),
        "slowest client evaluates": machine.median([inside["clients_evaluate"][-1] for inside in each], 4),
        "server evaluates": machine.median([inside["server_evaluates"] for inside in each], 4),
    }


if __name__ == "__main__":
    main()
