"""What is known of the nodes of a run beside their numbers: their labels, and the ids of their keys."""

import os
from collections.abc import Mapping
from pathlib import Path

from flwr.serverapp import Grid

from fl_common.selectors import Labels
from fl_server import registry
from fl_server.clock import Clock
from fl_server.whereabouts import HOME_VARIABLE


class Registered:
    """A grid may know its nodes' labels itself: then it has a mapping `labels`, as a simulated fleet may.

    Else the registry of the server that started this process knows them; a stock SuperLink has none.
    """

    def __init__(self, grid: Grid, clock: Clock) -> None:
        self._own: Mapping[int, Labels] | None = getattr(grid, "labels", None)
        home = os.environ.get(HOME_VARIABLE)
        self._home = Path(home) if home and self._own is None else None

    def labels(self) -> Mapping[int, Labels]:
        """Return the labels of all nodes that have any."""
        if self._home is not None:
            return registry.labels(self._home)
        return self._own or {}

    def identities(self) -> Mapping[int, str]:
        """Return the id of each node's public key, where it is known."""
        return registry.identities(self._home) if self._home is not None else {}
