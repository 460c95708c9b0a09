"""Ranges of metrics, written as one text: `loss=0:100,accuracy=0:1`. An end that is left out is open."""

from collections.abc import Mapping
from math import inf, isnan

from fl_common.errors import SettingsError

Ranges = Mapping[str, tuple[float, float]]


def parse(text: str) -> dict[str, tuple[float, float]]:
    """Return the lowest and highest allowed value of each metric named. Raises SettingsError for what is no range."""
    return dict(_range(term.strip(), text) for term in text.split(",")) if text.strip() else {}


def outside(metrics: Mapping[str, float], ranges: Ranges) -> str | None:
    """Return what is wrong with the first metric that lies outside of its range, NaN included; None where all fit."""
    for name, (low, high) in ranges.items():
        if name in metrics and not low <= metrics[name] <= high:
            return f"{name}: expected a number from {low:g} to {high:g}; got {metrics[name]:g}"
    return None


def _range(term: str, text: str) -> tuple[str, tuple[float, float]]:
    name, equals, ends = term.partition("=")
    low, colon, high = ends.partition(":")
    try:
        lowest, highest = float(low or -inf), float(high or inf)
    except ValueError:
        colon, lowest, highest = "", 0.0, 0.0
    if not (name.strip() and equals and colon) or isnan(lowest) or isnan(highest) or lowest > highest:
        raise SettingsError(
            f"metric_limits={text!r}: expected name=lowest:highest, several with commas; got {term!r}. "
            "Try --set metric_limits=loss=0:100,accuracy=0:1"
        )
    return name.strip(), (lowest, highest)
