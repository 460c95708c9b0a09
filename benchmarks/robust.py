"""The robust strategies beside Flower's: 20 replies of 100 MB through the whole of aggregate_train, in turns.

Real flwr Messages lie ready in memory, 2 GB of them; each strategy decodes, checks, combines and encodes. `seconds` by
the clock, `cpu` of the process, which other processes disturb less: medians, without the first time. `peak_mb`: how far
the peak of the resident set rises above what is there before, the replies; the most of all repeats. Flower has no
geometric median, no norm clipping and no centered clipping. `kernels`: what numba costs a process, once.
Run `python benchmarks/robust.py [--quick] [STRATEGY ...]`; it writes benchmarks/results/robust.json, where strategies
that are not measured this time stay, and the table of docs/explanation/robustness.md.
"""

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

import flwr.serverapp.strategy as flowers
import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict

from benchmarks import machine
from benchmarks.aggregation import _peak, _reset_peak, _resident, model
from fl_common.messages.arrays import encode
from strategies.bulyan import Bulyan
from strategies.centered_clipping import CenteredClipping
from strategies.krum import Krum, MultiKrum
from strategies.median import Median
from strategies.norm_clipping import NormClipping
from strategies.rfa import RFA
from strategies.rules import ordering
from strategies.trimmed_mean import TrimmedMean

RESULT = Path(__file__).parent / "results" / "robust.json"
PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "robustness.md"
START, END = "<!-- speed:start -->\n", "<!-- speed:end -->\n"
F = 4
PAIRS: dict[str, tuple[Callable[[], Any], Callable[[], Any] | None]] = {
    "median": (Median, flowers.FedMedian),
    "trimmedmean": (lambda: TrimmedMean(f=F), lambda: flowers.FedTrimmedAvg(beta=0.2)),
    "krum": (lambda: Krum(f=F), lambda: flowers.Krum(num_malicious_nodes=F)),
    "multikrum": (
        lambda: MultiKrum(f=F),
        lambda: flowers.MultiKrum(num_malicious_nodes=F, num_nodes_to_select=20 - F),
    ),
    "bulyan": (lambda: Bulyan(f=F), lambda: flowers.Bulyan(num_malicious_nodes=F)),
    "rfa": (RFA, None),
    "normclipping": (NormClipping, None),
    "centeredclipping": (CenteredClipping, None),
}


def replies_of(records: list[ArrayRecord]) -> list[Message]:
    """Return messages over the same bytes: Flower's strategies take the arrays out of theirs."""
    made = []
    for node, record in enumerate(records, 1):
        request = Message(content=RecordDict(), dst_node_id=node, message_type=MessageType.TRAIN)
        content = RecordDict({"arrays": ArrayRecord(dict(record)), "metrics": MetricRecord({"num-examples": 100})})
        made.append(Message(content, reply_to=request))
    return made


def measured(strategy: Any, records: list[ArrayRecord], current: ArrayRecord | None) -> tuple[float, float, float]:
    """Return the seconds, the CPU seconds and the megabytes of one aggregation. current: ours need the model."""
    if current is not None:
        strategy.eligible = lambda: range(1, len(records) + 1)
        strategy.configure_train(1, current, ConfigRecord(), None)
    replies, base = replies_of(records), _resident()
    _reset_peak()
    wall, cpu = time.perf_counter(), time.process_time()
    arrays, _ = strategy.aggregate_train(1, replies)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if arrays is None:
        raise SystemExit(f"{type(strategy).__name__} aggregated nothing")
    return wall, cpu, (_peak() - base) / 1e6


def kernels() -> dict[str, float]:
    """Return what importing numba and compiling the kernels takes, once."""
    small = [{"w": np.zeros(10, np.float32)} for _ in range(3)]
    wall, cpu, base = time.perf_counter(), time.process_time(), _resident()
    ordering.trimmed_mean(small, ["w"], 1, compiled=True)
    ordering.mean_around_median(small, ["w"], 1, compiled=True)
    return {
        "seconds": round(time.perf_counter() - wall, 2),
        "cpu": round(time.process_time() - cpu, 2),
        "mb": round((_resident() - base) / 1e6),
    }


def summary(runs: list[tuple[float, float, float]], repeats: int) -> dict[str, float]:
    """Return the medians over the repeats, and the highest peak of all, a warm-up's too."""
    seconds, cpu, _ = zip(*runs[-repeats:], strict=True)
    peak = [each for *_, each in runs]
    return {
        "seconds": machine.median(seconds, 2),
        "cpu": machine.median(cpu, 2),
        "peak_mb": round(max(peak)),
    }


def table(result: dict[str, Any]) -> str:
    """Return the measurements as Markdown."""
    lines = [
        f"20 replies of {result['megabytes']} MB; seconds of CPU, and memory beside the replies themselves:",
        "",
        "| strategy | CPU | memory | Flower's CPU | Flower's memory |",
        "|---|---|---|---|---|",
    ]
    for name, row in result["strategies"].items():
        ours, theirs = row["ours"], row.get("flower")
        other = f"{theirs['cpu']:.1f} s | {theirs['peak_mb']} MB" if theirs else "| "
        lines.append(f"| `{name}` | {ours['cpu']:.1f} s | {ours['peak_mb']} MB | {other} |")
    cpu = result["machine"]["cpu"]
    note = f"{cpu}, {result['machine']['cores']} virtual cores, shared and busy, which slows the larger memory more;"
    return "\n".join([*lines, "", f"{note} {result['date'][:10]}, `benchmarks/robust.py`."]) + "\n"


def page(text: str, result: dict[str, Any]) -> str:
    """Return the page's text with the table between its markers."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return before + START + table(result) + END + after


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20 replies of 10 MB; writes nothing")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("strategies", nargs="*", default=list(PAIRS), metavar="STRATEGY")
    given = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    megabytes = 10 if given.quick else 100
    result: dict[str, Any] = {**machine.facts(), "how": __doc__, "replies": 20, "megabytes": megabytes}
    result["kernels"] = kernels()
    current = encode(model(megabytes))
    records = [encode(model(megabytes, seed=seed)) for seed in range(1, 21)]
    runs: dict[str, dict[str, list[tuple[float, float, float]]]] = {}
    for repeat in range(given.repeats + 1):
        for name in given.strategies:
            ours, theirs = PAIRS[name]
            for who, kind in (("ours", ours), ("flower", theirs)):
                if kind is not None and (repeat or who == "ours"):  # Flower has nothing to warm up
                    once = measured(kind(), records, current if who == "ours" else None)
                    runs.setdefault(name, {}).setdefault(who, []).append(once)
    before = json.loads(RESULT.read_text())["strategies"] if RESULT.exists() and not given.quick else {}
    measured_now = {
        name: {who: summary(each, given.repeats) for who, each in row.items()} for name, row in runs.items()
    }
    for row in measured_now.values():
        if "flower" in row:
            row["times_cpu"] = round(row["flower"]["cpu"] / row["ours"]["cpu"], 1)
            row["times_seconds"] = round(row["flower"]["seconds"] / row["ours"]["seconds"], 1)
    known = before | measured_now
    result["strategies"] = {name: known[name] for name in PAIRS if name in known}
    print(json.dumps(measured_now))
    if not given.quick:
        RESULT.write_text(json.dumps(result, indent=2) + "\n")
        PAGE.write_text(page(PAGE.read_text(), result))


if __name__ == "__main__":
    main()
