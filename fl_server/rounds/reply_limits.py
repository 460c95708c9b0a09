"""What a reply may be, beyond its form: its size, how far it moves the model, its examples, its metrics."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_common.errors import RejectedReply
from fl_common.messages.arrays import Arrays, is_float
from fl_common.settings import metric_ranges
from fl_common.settings.metric_ranges import Ranges
from fl_common.settings.schema import Settings
from strategies.replies import Reply

MB = 1_000_000
SIZES = 2  # an automatic limit allows this many times what was sent
ROOM = 4 * MB  # and this much for headers and metrics
BLOCK = 1 << 16  # elements whose difference is taken at once


@dataclass(frozen=True)
class Limits:
    """Limits on a reply; 0 and an empty mapping are none."""

    examples: int
    update_norm: float = 0.0
    metrics: Ranges = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        """Return the limits that are set."""
        return cls(settings.max_examples, settings.max_update_norm, metric_ranges.parse(settings.metric_limits))

    def check(self, reply: Reply, sent: Arrays | None) -> None:
        """Raise RejectedReply("range" or "norm") where a reply that has the right form is beyond a limit.

        sent: the model that the client began from; None for an evaluation.
        """
        if wrong := metric_ranges.outside(reply.metrics, self.metrics):
            raise RejectedReply("range", wrong)
        if self.update_norm and sent is not None:
            norm = distance(reply.arrays, sent)
            if not norm <= self.update_norm:
                raise RejectedReply("norm", f"expected an update of norm {self.update_norm:g} at most; got {norm:.6g}")


def allowed_bytes(max_reply_mb: float, sent: int) -> int:
    """Return how large a reply may be, in bytes, to a message of `sent` bytes; the setting 0 allows in proportion."""
    return int(max_reply_mb * MB) or SIZES * sent + ROOM


def distance(arrays: Mapping[str, NDArray[Any]], others: Mapping[str, NDArray[Any]]) -> float:
    """Return the L2 norm of the difference of two models, over all variables that are averaged, in float64."""
    with np.errstate(over="ignore"):  # what overflows is infinitely far
        return sqrt(sum(_squares(arrays[name], other) for name, other in others.items() if is_float(other.dtype)))


def _squares(left: NDArray[Any], right: NDArray[Any]) -> float:
    a, b = left.reshape(-1), right.reshape(-1)
    total = 0.0
    for start in range(0, a.size, BLOCK):
        block = slice(start, start + BLOCK)
        difference = np.abs(a[block].astype(_wide(a)) - b[block].astype(_wide(b)))
        total += float(np.dot(difference, difference))
    return total


def _wide(array: NDArray[Any]) -> Any:
    return np.complex128 if array.dtype.kind == "c" else np.float64
