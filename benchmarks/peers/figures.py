"""What a run's events come to, and the table of all runs: medians, and ratios to Parterre."""

from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.peers.engines import ENGINES, OURS
from benchmarks.peers.plans import examples
from benchmarks.workloads import Workload

TARGETS = {  # of issue 3: how many times a peer's updates a second
    "W1": {"pfl": 10, "fedjax": 8, "tff": 100, "flower-cached": 1000},
    "W2": {"pfl": 1.5, "fedjax": 6, "tff": 6, "flower-cached": 20},
    "W3": {"pfl": 1.5, "fedjax": 6, "tff": 6, "flower-cached": 20},
}
SAME = 0.02  # accuracies further apart than this make a comparison void


def figures(workload: Workload, played: dict[str, Any], log: Path) -> dict[str, Any]:
    """Return a run's figures, or {"failed": why}. Warm rounds are left out, where more than those were played."""
    rounds = [event for event in played["events"] if event["event"] == "round"]
    last = played["events"][-1] if played["events"] else {"event": "nothing"}
    if not rounds or last["event"] not in ("end", "finished"):
        said = log.read_text()[-300:].strip()
        return {"failed": f"{len(rounds)} rounds in {played['wall']} s, exit {played['status']}: ...{said}"}
    seconds = [_seconds(event) for event in rounds]
    warm = min(workload.warm, len(rounds) - 1)
    stepped = examples(workload.name)
    hot, cpu = seconds[warm:], played["cpu"]
    cohort = rounds[0].get("updates", workload.cohort)
    spent = cpu[-1] - (cpu[warm - 1] if warm else 0)
    return {
        "updates_a_second": round(cohort / median(hot), 2),
        "examples_a_second": round(cohort / workload.cohort * sum(stepped[warm : len(rounds)]) / sum(hot)),
        "first_round_seconds": round(seconds[0], 2),
        "to_first_round_seconds": round(rounds[0]["at"], 2),
        "peak_memory_mb": played["peak_mb"],
        "cpu_ms_an_update": round(1000 * spent / (cohort * len(hot)), 2),
        "accuracy": round(last["accuracy"], 4),
        "cohort": cohort,
        "rounds": len(rounds),
        "measured_rounds": len(hot),
        "wall_seconds": played["wall"],
        **_of_ours(workload, rounds, warm),
    }


def _seconds(event: dict[str, Any]) -> float:
    """Return how long a round trained and aggregated."""
    phases = event.get("phases")
    return float(phases["train"] + phases["aggregate"] if phases else event["seconds"])


def _of_ours(workload: Workload, rounds: list[dict[str, Any]], warm: int) -> dict[str, Any]:
    """Return what only `fl simulate` has: it evaluates and commits every round, which no peer is made to do."""
    if "phases" not in rounds[0]:
        return {}
    whole = median([event["seconds"] for event in rounds[warm:]])
    return {
        "updates_a_second_with_evaluation_and_commit": round(workload.cohort / whole, 2),
        "accuracies": [round(event["accuracy"], 4) for event in rounds],
    }


def middle(runs: list[dict[str, Any]], key: str) -> float:
    """Return the median of a figure over the runs that did not fail."""
    return median([run[key] for run in runs if "failed" not in run])


def apart(runs: dict[str, list[dict[str, Any]]], engine: str) -> float:
    """Return how far a peer's last accuracy is from Parterre's after the same number of rounds."""
    peer = next(run for run in runs[engine] if "failed" not in run)
    mine = next(run for run in runs[OURS] if "failed" not in run)
    return float(peer["accuracy"] - mine["accuracies"][peer["rounds"] - 1])


def table(workloads: dict[str, dict[str, Any]]) -> str:
    """Return all workloads as Markdown."""
    return "\n".join(line for name in sorted(workloads) for line in _workload(name, **workloads[name]))


def _workload(name: str, runs: dict[str, list[dict[str, Any]]], date: str, commit: str, note: str = "") -> list[str]:
    loads = [run["load_1m"] for each in runs.values() for run in each if "load_1m" in run]
    load = f", load {min(loads)} to {max(loads)}" if loads else ""
    lines = [
        f"**{name}**, {date}, commit {commit}{load}{note}",
        "",
        "| engine | updates/s | Parterre is | CPU ms an update | first round s | peak MB | accuracy | rounds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    titles = {OURS: "Parterre", **{engine: each.title for engine, each in ENGINES.items()}}
    for engine, title in titles.items():
        if engine in runs:
            lines.append(_row(title, engine, runs))
    return [*lines, "", *_verdicts(name, runs), ""]


def _row(title: str, engine: str, runs: dict[str, list[dict[str, Any]]]) -> str:
    good = [run for run in runs[engine] if "failed" not in run]
    if not good:
        return f"| {title} | did not finish | | | | | | |"
    speed = middle(good, "updates_a_second")
    times = "" if engine == OURS else f"{_number(middle(runs[OURS], 'updates_a_second') / speed)} times as fast"
    difference = "" if engine == OURS else f" ({apart(runs, engine):+.4f})"
    cells = [
        title,
        _number(speed),
        times,
        _number(middle(good, "cpu_ms_an_update")),
        _number(middle(good, "first_round_seconds")),
        f"{middle(good, 'peak_memory_mb'):.0f}",
        f"{good[-1]['accuracy']:.4f}{difference}",
        str(good[-1]["rounds"]),
    ]
    return f"| {' | '.join(cells)} |"


def _verdicts(name: str, runs: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return a line for each target of the workload: the ratio to the fastest variant of the peer."""
    said = []
    for peer, target in TARGETS.get(name, {}).items():
        same = [engine for engine in runs if engine.startswith(peer) and _played(runs[engine])]
        if not same or not _played(runs[OURS]):
            continue
        best = max(same, key=lambda engine: middle(runs[engine], "updates_a_second"))
        ratio = middle(runs[OURS], "updates_a_second") / middle(runs[best], "updates_a_second")
        void = "" if abs(apart(runs, best)) <= SAME else "; void: the accuracies differ"
        met = "met" if ratio >= target else "missed"
        said.append(f"- target {target:g} times {ENGINES[best].title}: {_number(ratio)}, {met}{void}")
    return said


def _played(runs: list[dict[str, Any]]) -> bool:
    return any("failed" not in run for run in runs)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
