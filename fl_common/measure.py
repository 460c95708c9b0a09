"""By which metric one round is better than another: `loss`, `accuracy`, or any other with its direction, `f1:max`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fl_common.errors import SettingsError

HIGHER, LOWER = "max", "min"
KNOWN = {"loss": LOWER, "accuracy": HIGHER}


@dataclass(frozen=True)
class Measure:
    """A metric of the "round" event, and whether more of it is better."""

    metric: str
    higher: bool

    def of(self, event: Mapping[str, Any]) -> float | None:
        """Return a round's value such that a lower one is better; None where the round has no such number."""
        value = event.get(self.metric, (event.get("metrics") or {}).get(self.metric))
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(-value if self.higher else value)


def parse(text: str) -> Measure | None:
    """Return the measure that `keep_best` names; None for "". Raises SettingsError where the direction is missing."""
    name, _, direction = text.strip().partition(":")
    direction = direction or KNOWN.get(name, "")
    if not text.strip():
        return None
    if not name or direction not in (HIGHER, LOWER):
        raise SettingsError(
            f"keep_best={text!r}: expected loss, accuracy, or a metric with its direction. "
            f"Try --set keep_best={name or 'NAME'}:max, or :min where lower is better"
        )
    return Measure(name, direction == HIGHER)
