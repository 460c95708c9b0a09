"""The chaos runs as a result: several seeds, one after another, with the machine they ran on, and the docs' table.

Run `python benchmarks/chaos.py --seeds 1 2 3`: two to three minutes a seed; it writes benchmarks/results/chaos.json and
the table in docs/explanation/crashes.md. `--seed-reports` takes the reports that are in build/chaos instead of running;
`--page` writes the page from the result.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.machine import facts

ROOT = Path(__file__).parents[1]
REPORTS = ROOT / "build" / "chaos"
RESULT = ROOT / "benchmarks" / "results" / "chaos.json"
PAGE = ROOT / "docs" / "explanation" / "crashes.md"
START, END = "<!-- chaos:start -->\n", "<!-- chaos:end -->\n"
MB = 1_000_000


def suffer(seed: int) -> None:
    """Run one seed, which leaves its report. Raises CalledProcessError where anything that must be true was not."""
    command = [sys.executable, "-m", "pytest", "tests/chaos", "-m", "chaos", "-k", "among", "-s"]
    environment = os.environ | {"CHAOS_SEEDS": str(seed), "CHAOS_REPORT": str(REPORTS)}
    subprocess.run(command, cwd=ROOT, env=environment, check=True)


def merged(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the result of several reports: what happened to each seed, and the seconds to recover by kind of fault."""
    kinds = list(reports[0]["faults"])
    seconds = {
        kind: [each for report in reports for each in report["recovery_by_kind"].get(kind, [])] for kind in kinds
    }
    return {
        "seeds": [report["seed"] for report in reports],
        "rounds": sum(report["rounds"] for report in reports),
        "rounds_lost": sum(report["rounds_lost"] for report in reports),
        "updates_accepted": sum(report["updates_accepted"] for report in reports),
        "faults": {kind: len(times) for kind, times in seconds.items()},
        "recovery_by_kind": seconds,
        "by_seed": reports,
    }


def table(result: dict[str, Any]) -> str:
    """Return the page's part on the results."""
    machine = result["machine"]
    every = [each for times in result["recovery_by_kind"].values() for each in times]
    lines = [
        f"Seeds {', '.join(map(str, result['seeds']))}, one after another, {result['date']}, {machine['cpu']}, "
        f"{machine['cores']} cores, {machine['memory_gb']:.0f} GB, commit {result['commit']}:",
        "",
        "| fault | times | seconds to the next round: median | worst |",
        "|---|---|---|---|",
        *(
            f"| {kind} | {len(times)} | {median(times):.1f} | {max(times):.1f} |"
            for kind, times in result["recovery_by_kind"].items()
            if times
        ),
        f"| **all** | **{len(every)}** | **{median(every):.1f}** | **{max(every):.1f}** |",
        "",
        "| seed | rounds | lost | updates accepted | runs started again | MB after round 5 | MB at the end | seconds |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {each['seed']} | {each['rounds']} | {each['rounds_lost']} | {each['updates_accepted']} "
            f"| {each['restarted_runs']} | {_mb(each, 'round 5')} | {_mb(each, 'end')} | {each['seconds']:.0f} |"
            for each in result["by_seed"]
        ),
    ]
    return "\n".join(lines) + "\n"


def _mb(report: dict[str, Any], when: str) -> int:
    return round(sum(report["memory_bytes"][when].values()) / MB)


def page(text: str, result: dict[str, Any]) -> str:
    """Return the page's text with the tables between their markers."""
    before, _, rest = text.partition(START)
    return before + START + table(result) + END + rest.partition(END)[2]


def main() -> None:
    """Run, merge, and write result and page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--seed-reports", action="store_true", help="take the reports in build/chaos; run nothing")
    parser.add_argument("--page", action="store_true", help="write the page from the result; run nothing")
    given = parser.parse_args()
    if not given.page:
        for seed in given.seeds if not given.seed_reports else ():
            suffer(seed)
        reports = [json.loads((REPORTS / f"chaos-{seed}.json").read_text()) for seed in given.seeds]
        RESULT.write_text(json.dumps(facts() | merged(reports), indent=1) + "\n")
    PAGE.write_text(page(PAGE.read_text(), json.loads(RESULT.read_text())))


if __name__ == "__main__":
    main()
