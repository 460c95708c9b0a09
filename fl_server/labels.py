"""What is known of the nodes of a run beside their numbers: their labels, and the ids of their keys."""

from collections.abc import Mapping

from flwr.serverapp import Grid

from fl_common.selectors import Labels
from fl_server.clock import Clock


class Registered:
    """A grid may know its nodes' labels itself: then it has a mapping `labels`, as a simulated fleet may."""

    def __init__(self, grid: Grid, clock: Clock) -> None:
        self._own: Mapping[int, Labels] | None = getattr(grid, "labels", None)

    def labels(self) -> Mapping[int, Labels]:
        """Return the labels of all nodes that have any."""
        return self._own or {}

    def identities(self) -> Mapping[int, str]:
        """Return the id of each node's public key, where it is known."""
        return {}
