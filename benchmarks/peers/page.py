"""Writes the tables of benchmarks/results/peers.json into docs/explanation/benchmarks.md: after a comparison."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.peers.figures import table

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "peers.json"
PAGE = ROOT / "docs" / "explanation" / "benchmarks.md"
START, END = "<!-- peers:start -->\n", "<!-- peers:end -->\n"


def main() -> None:
    """Write them."""
    result = json.loads(RESULTS.read_text())
    before, _, rest = PAGE.read_text().partition(START)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + START + table(result["workloads"]) + "\n" + END + after)


if __name__ == "__main__":
    main()
