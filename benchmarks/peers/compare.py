"""Parterre's simulation beside its peers': `python benchmarks/peers/compare.py [--workloads W1 ...] [--engines ...]`.

Every engine plays the same plan (plans.py): the same clients, rounds, order of examples and starting weights. Engines
take turns, `--repeats` times; figures are medians. What does not install or does not finish is reported as that.
`--prefix` is put before each command, to give it a quiet machine.
"""

# ruff: noqa: E402  the environment is taken down before anything is imported that changes it

import argparse
import json
import os
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

ENVIRONMENT = dict(os.environ)  # before anything imports TensorFlow as a deployed client has it, without oneDNN

from benchmarks.machine import facts
from benchmarks.peers.engines import ENGINES, OURS, ours
from benchmarks.peers.environments import ENVIRONMENTS, state
from benchmarks.peers.figures import figures, table
from benchmarks.peers.measure import become_reaper, play
from benchmarks.peers.plans import CACHE, ROUNDS, plan_of, workload

ROOT = Path(__file__).parents[2]
BEGIN = ("sh", "-c", """echo '{"event": "begin"}'; exec "$@" """, "sh")  # said when a prefix lets it begin
SLOW = 60  # seconds: an engine whose run takes longer is run once
RESULTS = ROOT / "benchmarks" / "results" / "peers.json"


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", default=list(ROUNDS), choices=list(ROUNDS))
    parser.add_argument("--engines", nargs="*", default=list(ENGINES), choices=list(ENGINES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=150, help="no round of an engine begins after that")
    parser.add_argument("--limit", type=float, default=225, help="an engine is ended after that")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where they go")
    parser.add_argument("--prefix", default="", help="a command to put before each, such as 'chrt -f 1'")
    return parser.parse_args()


def run(engine: str, name: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Play the workload `name` on an engine, and return its figures, or {"failed": why}."""
    log = CACHE / "logs" / f"{name}-{engine}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        if engine == OURS:
            command, variables = ours(name, f"{folder}/run"), dict(ENVIRONMENT)
        else:
            command, variables = ENGINES[engine].command(name, asked.seconds), ENGINES[engine].variables()
        command = [*shlex.split(asked.prefix), *BEGIN, *command]
        load = os.getloadavg()[0]
        played = play(command, limit=asked.limit, environment=variables | {"TMPDIR": folder}, log=log)
    return figures(workload(name), played, log) | {"load_1m": round(load, 1)}


def compare(name: str, asked: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Play one workload on all engines in turn, and return their runs."""
    plan_of(name)
    engines = [OURS, *(engine for engine in asked.engines if state(ENGINES[engine].environment)["installed"])]
    results: dict[str, list[dict[str, Any]]] = {engine: [] for engine in engines}
    for turn in range(asked.repeats):
        for engine, runs in results.items():
            if turn and ("failed" in runs[-1] or runs[-1]["wall_seconds"] > SLOW):
                continue
            runs.append(run(engine, name, asked))
            print(name, engine, json.dumps(runs[-1]), flush=True)
    return results


def main() -> None:
    """Compare, and write the results."""
    asked = arguments()
    become_reaper()
    kept = json.loads(asked.results.read_text()) if asked.results.exists() else {}
    workloads = kept.get("workloads", {})
    for name in asked.workloads:
        head = facts()
        # Never figures of two occasions beside each other: what there was of this workload is replaced.
        workloads[name] = {"date": head["date"], "commit": head["commit"], "runs": compare(name, asked)}
        environments = {name: state(name) for name in ENVIRONMENTS}
        result = {**head, "environments": environments, "workloads": workloads}
        asked.results.write_text(json.dumps({**result, "table": table(workloads).splitlines()}, indent=2) + "\n")
    print(table(workloads))


if __name__ == "__main__":
    main()
