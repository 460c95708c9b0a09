"""What is known of the nodes of a run beside their numbers: their labels, and the ids of their keys."""

import os
from collections.abc import Mapping
from pathlib import Path

from flwr.serverapp import Grid

from fl_common.selectors import Labels
from fl_server.admitted import Client
from fl_server.clock import Clock
from fl_server.registry import FILE, Registry
from fl_server.whereabouts import HOME_VARIABLE

FRESH_SECONDS = 1.0


class Registered:
    """Reads the registry of the SuperLink that this process belongs to, again when what it read is a second old.

    A grid may know its nodes' labels itself: then it has a mapping `labels`, as a simulated fleet may.
    """

    def __init__(self, grid: Grid, clock: Clock) -> None:
        self._own: Mapping[int, Labels] | None = getattr(grid, "labels", None)
        self._clock = clock
        self._home = os.environ.get(HOME_VARIABLE, "")
        self._labels: Mapping[int, Labels] = {}
        self._read_at = float("-inf")

    def labels(self) -> Mapping[int, Labels]:
        """Return the labels of all nodes that have any."""
        if self._own is not None:
            return self._own
        if self._home and self._clock.now() - self._read_at > FRESH_SECONDS:
            self._labels, self._read_at = labels(Path(self._home)), self._clock.now()
        return self._labels

    def identities(self) -> Mapping[int, str]:
        """Return the id of each node's public key, where it is known."""
        return identities(Path(self._home)) if self._home else {}


def labels(home: Path) -> Mapping[int, Labels]:
    """Return {node id: {label: value}} of every client of a server that was given a node id."""
    return {client.node: client.labels for client in _with_node(home)}


def identities(home: Path) -> Mapping[int, str]:
    """Return {node id: client id} of every client of a server that was given a node id."""
    return {client.node: client.identity for client in _with_node(home)}


def _with_node(home: Path) -> list[Client]:
    if not (home / FILE).exists():
        return []
    registry = Registry(home)
    try:
        return [client for client in registry.clients() if client.node]
    finally:
        registry.close()
