"""Simulated client updates a second, by `fl simulate` itself: `python benchmarks/simulation.py [W1 W2 ...]`.

W1: Dense 10 relu, Dense 10 softmax on Fashion-MNIST's 784 inputs; 1,000 clients of 60, 100 a round, 1 local epoch,
batch 32, SGD 0.1. W2: the same federation with a small CNN. W4: W1 with a Dirichlet(0.3) split. Needs Debian's package
dataset-fashion-mnist. Figures are medians over the rounds after the first three.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.machine import facts, median

HERE = Path(__file__).parent
DATA = "/usr/share/datasets/fashion-mnist"
WARM = 3  # rounds that are left out: tracing, and memory that is used for the first time
COMMON = ("--clients", "1000", "--fraction", "0.1", "--json")
SETTINGS = ("batch_size=32", "local_epochs=1", "validation_fraction=0", "fraction_evaluate=0", "tensorboard=false")
MLP = ("--task", "fashion_mnist", "--set", f"data_dir={DATA}", "--set", "model=mlp")
WORKLOADS: dict[str, tuple[int, tuple[str, ...]]] = {
    "W1": (40, MLP),
    "W2": (10, ("--task", str(HERE / "small_cnn.py"))),
    "W4": (30, (*MLP, "--set", "partitioning=dirichlet", "--set", "alpha=0.3")),
}


def measured(name: str) -> dict[str, Any]:
    """Run one workload in a process of its own, and return its figures."""
    rounds, arguments = WORKLOADS[name]
    with tempfile.TemporaryDirectory() as folder:
        settings = [part for each in SETTINGS for part in ("--set", each)]
        command = [sys.executable, "-m", "fl_cli.main", "simulate", *COMMON, *settings, *arguments]
        command += ["--rounds", str(rounds), "--out", f"{folder}/run"]
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE.parent)
        lines = process.stdout.read().splitlines() if process.stdout else []
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
    if status:
        raise SystemExit(f"{name} failed")
    events = [json.loads(line) for line in lines]
    played = [event for event in events if event["event"] == "round"]
    training = [event["phases"]["train"] + event["phases"]["aggregate"] for event in played]
    cohort = played[0]["cohort"]
    return {
        "engine": next(event["engine"] for event in events if event["event"] == "engine"),
        "updates_a_second": {
            "training": round(cohort / median(training[WARM:], 6)),
            "whole_round": round(cohort / median([event["seconds"] for event in played[WARM:]], 6)),
            "best_round": round(cohort / min(training[WARM:])),
        },
        "round_ms": {
            phase: median([1000 * event["phases"][phase] for event in played[WARM:]], 2)
            for phase in ("train", "aggregate", "evaluate", "commit")
        },
        "first_round_seconds": round(played[0]["seconds"], 2),
        "cpu_ms_an_update": round(1000 * (usage.ru_utime + usage.ru_stime) / (cohort * rounds), 3),
        "peak_memory_mb": round(usage.ru_maxrss / 1024),
        "accuracy": played[-1]["accuracy"],
        "rounds": rounds,
        "wall_seconds": round(wall, 1),
    }


def main() -> None:
    """Measure the workloads named on the command line, all by default, and write the results."""
    names = sys.argv[1:] or list(WORKLOADS)
    path = HERE / "results" / "simulation.json"
    results = json.loads(path.read_text())["results"] if path.exists() else {}
    for name in names:
        results[name] = measured(name)
        print(name, json.dumps(results[name]))
    path.write_text(json.dumps({**facts(), "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
