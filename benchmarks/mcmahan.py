"""Rounds to 99 % on MNIST beside table 2 of McMahan et al.: `python benchmarks/mcmahan.py [iid] [shards]`.

arXiv:1602.05629, the CNN with E=5, B=10, C=0.1: 20 rounds iid, 229 with two digits a client. They tuned the learning
rate for each; here it is RATES, not tuned. Their curves are made monotone and interpolated; here it is the first round
whose model has at least 99 % of the test set. A run that was stopped goes on where it was (its run directory is in the
cache folder). Writes benchmarks/results/mcmahan.json and docs/images/mcmahan.png.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import datasets
from benchmarks.machine import facts

ROOT = Path(__file__).parents[1]
CACHE = Path(os.environ.get("PARTERRE_PEERS", "~/.cache/parterre-peers")).expanduser()
RESULTS = ROOT / "benchmarks" / "results" / "mcmahan.json"
PICTURE = ROOT / "docs" / "images" / "mcmahan.png"
PAPER = {"iid": 20, "shards": 229}
RATES = {"iid": 0.1, "shards": 0.05}
TARGET = 0.99


def command(partitioning: str, directory: Path, rounds: int) -> list[str]:
    """Return `fl simulate`, or `fl resume` where the run was begun."""
    fl = [sys.executable, "-m", "fl_cli.main"]
    if directory.is_dir():
        return [*fl, "resume", str(directory), "--rounds", str(rounds), "--json"]
    settings = {
        "data_dir": datasets.folder("mnist"),
        "model": "cnn",
        "clients_per_round": 10,
        "local_epochs": 5,
        "batch_size": 10,
        "learning_rate": RATES[partitioning],
        "partitioning": partitioning,
        "classes_per_client": 2,
        "validation_fraction": 0,
        "fraction_evaluate": 0,
        "target_accuracy": TARGET,
        "tensorboard": "false",
    }
    assigned = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    start = [*fl, "simulate", "--json", "--task", "mnist", "--clients", "100", "--seed", "0", "--rounds", str(rounds)]
    return [*start, *assigned, "--out", str(directory)]


def play(partitioning: str, asked: argparse.Namespace) -> None:
    """Begin or go on with a run, for at most `--seconds`."""
    directory = CACHE / "mcmahan" / partitioning
    directory.parent.mkdir(parents=True, exist_ok=True)
    words = [*shlex.split(asked.prefix), *command(partitioning, directory, asked.rounds)]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        process.wait(timeout=asked.seconds)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=120)


def history(partitioning: str) -> dict[str, Any] | None:
    """Return what a run has come to; None where there is none."""
    path = CACHE / "mcmahan" / partitioning / "events.jsonl"
    if not path.exists():
        return None
    events = [json.loads(line) for line in path.read_text().splitlines()]
    rounds = {event["round"]: event for event in events if event["event"] == "round"}  # the last of a number counts
    accuracies = [round(rounds[number]["accuracy"], 4) for number in sorted(rounds)]
    reached = next((number for number, value in enumerate(accuracies, 1) if value >= TARGET), None)
    return {
        "rounds_to_99": reached,
        "rounds_to_99_in_the_paper": PAPER[partitioning],
        "rounds": len(accuracies),
        "best_accuracy": max(accuracies, default=0.0),
        "learning_rate": RATES[partitioning],
        "seed": 0,
        "minutes": round(sum(event["seconds"] for event in rounds.values()) / 60, 1),
        "engine": next((event["engine"] for event in events if event["event"] == "engine"), ""),
        "accuracies": accuracies,
    }


def draw(results: dict[str, dict[str, Any]]) -> None:
    """Draw the accuracies of both runs, with the paper's rounds."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from fl_server.observers.plots import STYLE

    titles = {"iid": "iid", "shards": "two digits a client"}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 4), dpi=120, facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        for axes, (name, result) in zip(
            figure.subplots(1, len(results), squeeze=False)[0], results.items(), strict=True
        ):
            axes.plot(range(1, result["rounds"] + 1), result["accuracies"], color="#2f6f4f", linewidth=1.5)
            axes.axhline(TARGET, color="#9aa0a8", linewidth=1)
            axes.axvline(
                PAPER[name], color="#b5562b", linewidth=1, linestyle="--", label=f"paper: {PAPER[name]} rounds"
            )
            axes.set(title=f"{titles[name]}, {_found(result)}", xlabel="round", ylabel="test accuracy")
            axes.set_ylim(0.95 if name == "iid" else 0.5, 1.0)
            axes.legend(loc="lower right")
        figure.savefig(PICTURE)


def _found(result: dict[str, Any]) -> str:
    reached = result["rounds_to_99"]
    return f"99 % in round {reached}" if reached else f"{result['best_accuracy']:.1%} in {result['rounds']} rounds"


def main() -> None:
    """Play the runs named, both by default, and write what there is of both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", default=list(PAPER), help="iid, shards; 'none' only writes the results")
    parser.add_argument("--rounds", type=int, default=600, help="the most")
    parser.add_argument("--seconds", type=float, default=None, help="stop a run after that; it can go on later")
    parser.add_argument("--prefix", default="", help="a command to put before it")
    asked = parser.parse_args()
    for name in asked.runs:
        if name in PAPER:
            play(name, asked)
    results = {name: result for name in PAPER if (result := history(name)) is not None}
    RESULTS.write_text(json.dumps({**facts(), "results": results}, indent=2) + "\n")
    draw(results)
    for name, result in results.items():
        print(name, {key: value for key, value in result.items() if key != "accuracies"})


if __name__ == "__main__":
    main()
