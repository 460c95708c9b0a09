"""By which metric one round is better than another: `loss`, `accuracy`, or any other with its direction, `f1:max`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fl_common.errors import SettingsError

HIGHER, LOWER = "max", "min"
COUNTS = "metric"  # keep_best: the metric that counts
# How Keras's own metrics end, of which more is better, or less; for an output of its own a model puts its name before.
BETTER = {
    HIGHER: ("accuracy", "acc", "auc", "precision", "recall", "f1_score", "r2_score", "iou", "cosine_similarity"),
    LOWER: ("loss", "mae", "mse", "mape", "msle", "rmse", "error", "crossentropy", "hinge", "kl_divergence", "poisson"),
}


@dataclass(frozen=True)
class Measure:
    """A metric of the "round" event, and whether more of it is better."""

    metric: str
    higher: bool

    def of(self, event: Mapping[str, Any]) -> float | None:
        """Return a round's value such that a lower one is better; None where the round has no such number.

        event: the "round" event, or a result, whose metrics stand beside its loss.
        """
        value = event.get(self.metric, (event.get("metrics") or {}).get(self.metric))
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(-value if self.higher else value)


LOSS, ACCURACY = Measure("loss", higher=False), Measure("accuracy", higher=True)


def parse(text: str, setting: str = "keep_best") -> Measure | None:
    """Return the measure that a setting names; None for "". Raises SettingsError where the direction is not known."""
    name, _, direction = text.strip().partition(":")
    direction = direction or _known(name)
    if not text.strip():
        return None
    if not name or direction not in (HIGHER, LOWER):
        raise SettingsError(
            f"{setting}={text!r}: expected loss, accuracy, or a metric with its direction. "
            f"Try --set {setting}={name or 'NAME'}:max, or :min where lower is better"
        )
    return Measure(name, direction == HIGHER)


def _known(name: str) -> str:
    """Return the direction of a metric that is called as Keras calls its own, also `auc_1` and `sex_accuracy`."""
    plain = re.sub(r"_\d+$", "", name).lower()
    ends = ((direction, end) for direction, names in BETTER.items() for end in names)
    return next((direction for direction, end in ends if plain == end or plain.endswith(f"_{end}")), "")
