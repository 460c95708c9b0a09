"""Simulated client updates a second, by `fl simulate` itself: `python benchmarks/simulation.py [W1 W2 W3 W4 G1 ...]`.

benchmarks/workloads.py says what the workloads are. What the figures hold:

- end_to_end: cohort times rounds over the wall clock from the end of the last warm round to the end of the last round.
  Everything is in it: preparing, training, aggregating, the server's evaluation on the whole test set in each round, a
  durable checkpoint of each round, and the events.
- training: the same without the server's evaluation, as peers are measured that evaluate at the end only.
- best_round: the same as training, of the fastest round alone, without the commit.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.machine import facts, median
from benchmarks.workloads import WORKLOADS, Workload

HERE = Path(__file__).parent
PHASES = ("train", "aggregate", "evaluate", "commit")
QUIET = ("--json", "--set", "tensorboard=false", "--set", "plot=false")


def measured(workload: Workload, *, extra: Sequence[str] = ()) -> dict[str, Any]:
    """Run a workload by `fl simulate` in a process of its own and return its figures. extra: further arguments."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "fl_cli.main", "simulate", "--clients", str(workload.clients), *QUIET]
        command += [part for key, value in workload.settings().items() for part in ("--set", f"{key}={value}")]
        command += ["--out", f"{folder}/run", *extra]
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE.parent)
        lines = process.stdout.read().splitlines() if process.stdout else []
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
    if status:
        raise SystemExit(f"{workload.name} failed")
    return figures(workload, [json.loads(line) for line in lines], usage, wall)


def figures(workload: Workload, events: list[dict[str, Any]], usage: Any, wall: float) -> dict[str, Any]:
    """Return the figures of a run from its events and what the process used."""
    rounds = [event for event in events if event["event"] == "round"]
    warm, hot = workload.warm, rounds[workload.warm :]
    seconds = _time(rounds[-1]) - _time(rounds[warm - 1])
    evaluating = sum(event["phases"]["evaluate"] for event in hot)
    training = [event["phases"]["train"] + event["phases"]["aggregate"] for event in hot]
    updates = workload.cohort * len(hot)
    return {
        "engine": next(event["engine"] for event in events if event["event"] == "engine"),
        "updates_a_second": {
            "end_to_end": round(updates / seconds, 1),
            "training": round(updates / (seconds - evaluating), 1),
            "best_round": round(workload.cohort / min(training), 1),
        },
        "round_ms": {name: median([1000 * event["phases"][name] for event in hot], 2) for name in PHASES},
        "first_round_seconds": round(rounds[0]["seconds"], 2),
        "cpu_ms_an_update": round(1000 * (usage.ru_utime + usage.ru_stime) / (workload.cohort * len(rounds)), 3),
        "peak_memory_mb": round(usage.ru_maxrss / 1024),
        "accuracy": round(rounds[-1]["accuracy"], 4),
        "rounds": len(rounds),
        "measured_rounds": len(hot),
        "wall_seconds": round(wall, 1),
    }


def _time(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()


def main() -> None:
    """Measure the workloads named on the command line, all by default, and write the results."""
    names = sys.argv[1:] or list(WORKLOADS)
    path = HERE / "results" / "simulation.json"
    results = json.loads(path.read_text())["results"] if path.exists() else {}
    for name in names:
        results[name] = measured(WORKLOADS[name])
        print(name, json.dumps(results[name]))
        path.write_text(json.dumps({**facts(), "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
