"""The tables of docs/explanation/robustness.md are those of the results, and the results are of what the page says."""

import json
from pathlib import Path

from benchmarks import attacks
from strategies import BUILT_IN, argument_names
from strategies.robust import Robust

ROOT = Path(__file__).parent.parent


def test_the_page_shows_what_was_measured():
    text = attacks.PAGE.read_text()
    assert text == attacks.page(text, json.loads(attacks.RESULT.read_text())), "run benchmarks/attacks.py --page"


def test_the_page_shows_how_long_it_takes():
    result = json.loads((ROOT / "benchmarks" / "results" / "robust.json").read_text())
    assert f"| `median` | {result['strategies']['median']['ours']['cpu']:.1f} s |" in attacks.PAGE.read_text()


def test_every_robust_strategy_and_the_plain_mean_are_measured_with_arguments_that_they_take():
    assert set(attacks.STRATEGIES) == {"fedavg", *(name for name, kind in BUILT_IN.items() if issubclass(kind, Robust))}
    for name, arguments in attacks.STRATEGIES.items():
        assert set(arguments) <= argument_names(name)
