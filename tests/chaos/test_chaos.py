"""Forty rounds among faults of every kind: nothing that was committed is lost, nothing false gets in, nothing is left.

One seed by default; `make chaos` runs several. The report goes to CHAOS_REPORT, where that names a directory.
"""

import json
import os
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import checks
from tests.chaos.faults import Done, TooLate, inflict
from tests.chaos.federation import Federation, until
from tests.chaos.schedule import COUNTS, ROUNDS, schedule

pytestmark = pytest.mark.chaos

SEEDS = [int(seed) for seed in os.environ.get("CHAOS_SEEDS", "1").split()]
DISK = "size=96m"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[tuple[Path, frozenset[str]]]:
    """A store on a small disk of its own, and the faults that cannot be had where none can be mounted."""
    path = tmp_path / "store"
    path.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", DISK, "tmpfs", str(path)], capture_output=True, check=False)
    yield path, frozenset() if mount.returncode == 0 else frozenset({"full disk"})
    if mount.returncode == 0:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_the_same_seed_gives_the_same_schedule_of_every_kind() -> None:
    assert schedule(7) == schedule(7) != schedule(8)
    assert {kind: [fault.kind for fault in schedule(7)].count(kind) for kind in COUNTS} == COUNTS


@pytest.mark.parametrize("seed", SEEDS)
def test_a_run_among_faults_loses_no_round_and_ends_in_the_weights_of_what_it_accepted(
    seed: int, tmp_path: Path, store: tuple[Path, frozenset[str]]
) -> None:
    path, impossible = store
    began = time.monotonic()
    federation = Federation(tmp_path, store=path, seed=seed)
    try:
        done, memory = suffer(federation, seed, impossible)
    finally:
        federation.close()
    run = federation.directory_of_run
    assert run is not None
    checks.rounds_are_there_once_and_in_order(run, ROUNDS)
    updates = checks.weights_are_the_mean_of_what_was_accepted(run, federation.ledger, ROUNDS)
    checks.memory_is_level(memory["round 5"], memory["end"])
    checks.nothing_is_left(federation.seen, federation.ports, path, federation.temporary)
    checks.lies_are_called_what_they_are(federation.ledger, federation.events("rejected"))
    report(federation, seed, done, memory, impossible, time.monotonic() - began, updates)


def suffer(federation: Federation, seed: int, impossible: frozenset[str]) -> tuple[list[Done], dict[str, Any]]:
    """Run to the end among the faults of the schedule; return what happened, and memory at round 5 and at the end."""
    federation.begin()
    until(lambda: federation.committed() >= 5, "five rounds", federation)
    memory: dict[str, Any] = {"round 5": until(federation.whole_memory, "all of the server's processes", federation)}
    done: list[Done] = []
    for fault in schedule(seed, leave_out=impossible):
        until(lambda fault=fault: federation.committed() >= fault.round, f"round {fault.round}", federation)
        with suppress(TooLate):
            done.append(inflict(fault, federation))
    until(lambda: federation.run.poll() is not None, "fl run to end", federation)
    memory["end"] = next(found for _, found in sorted(federation.course.items(), reverse=True) if found)
    assert federation.run.returncode == 0, federation.log("run")[-2000:]
    told = [line for line in federation.log("run").splitlines() if line.startswith("{")]  # others say who was away
    assert json.loads(told[-1])["event"] == "finished"
    return done, memory


def recovery(federation: Federation, done: Done) -> float:
    """Return the seconds from a fault to the next commit, by the time in the event."""
    times = [datetime.fromisoformat(event["time"]).timestamp() for event in federation.events("round")]
    return round(min((each - done.at for each in times if each > done.at), default=0.0), 3)


def report(
    federation: Federation, seed: int, done: list[Done], memory: dict[str, Any], impossible: frozenset[str],
    seconds: float, updates: int,
) -> None:  # fmt: skip
    """Write the report as JSON, and show it as a table."""
    kinds = {kind: [recovery(federation, each) for each in done if each.fault.kind == kind] for kind in COUNTS}
    everything = [seconds for times in kinds.values() for seconds in times]
    facts = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "seed": seed,
        "seconds": round(seconds, 1),
        "rounds": ROUNDS,
        "rounds_lost": 0,  # the checks have passed
        "updates_accepted": updates,
        "faults": {kind: len(times) for kind, times in kinds.items()},
        "left_out": sorted(impossible),
        "recovery_seconds": {"median": round(statistics.median(everything), 3), "worst": max(everything)},
        "recovery_by_kind": kinds,
        "restarted_runs": len(federation.events("restarted")),
        "rejected": len(federation.events("rejected")),
        "repeats": len(federation.events("repeat")),
        "memory_bytes": memory,
        "memory_mb_by_round": {number: sum(each.values()) >> 20 for number, each in federation.course.items()},
    }
    folder = Path(os.environ.get("CHAOS_REPORT", federation.directory))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"chaos-{seed}.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(f"\nseed {seed}: {len(done)} faults in {ROUNDS} rounds, {seconds:.0f} s; rounds lost: 0")
    print(f"{'fault':<26}{'times':>6}{'median s':>10}{'worst s':>10}")
    for kind, times in kinds.items():
        if times:
            print(f"{kind:<26}{len(times):>6}{statistics.median(times):>10.2f}{max(times):>10.2f}")
    print(f"{'all':<26}{len(everything):>6}{statistics.median(everything):>10.2f}{max(everything):>10.2f}")
