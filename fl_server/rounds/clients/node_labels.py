"""What is known of a run's nodes beside their numbers: labels, the ids of their keys, what their data are called."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from flwr.serverapp import Grid

from fl_common.settings.label_selectors import Labels
from fl_common.tasks.client_data.data_names import Schema
from fl_server.access.client_records import SLOT, Client
from fl_server.access.client_registry import FILE, Registry
from fl_server.access.data_schemas import Schemas
from fl_server.rounds.clock import Clock
from fl_server.store.run_directories import HOME_VARIABLE

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
        self._own_schemas: Mapping[int, Schema] | None = getattr(grid, "schemas", None)
        self._noted = Schemas(Path(self._home)) if self._home else None
        self._schemas: Mapping[int, Schema] = {}
        self._schemas_read_at = float("-inf")
        self._read_at = float("-inf")

    def labels(self) -> Mapping[int, Labels]:
        """Return the labels of all nodes that have any."""
        if self._own is not None:
            return self._own
        return self._read(FRESH_SECONDS)

    def slots(self) -> Mapping[int, int]:
        """Return the slots that nodes are to have by their label `slot`, as they are now."""
        found = self._own if self._own is not None else self._read(0.0)
        told = {node: labels.get(SLOT, "") for node, labels in found.items()}
        return {node: int(slot) for node, slot in told.items() if slot.isdecimal()}

    def schemas(self) -> Mapping[int, Schema]:
        """Return what the data of every node are called that told names when it joined."""
        return {node: schema for node, schema in self._told().items() if schema.columns or schema.classes}

    def with_own_data(self) -> Collection[int]:
        """Return the nodes that told when they joined that they have data of their own."""
        return self._told().keys()

    def _told(self) -> Mapping[int, Schema]:
        if self._own_schemas is not None:
            return self._own_schemas
        if self._noted is not None and self._clock.now() - self._schemas_read_at > FRESH_SECONDS:
            self._schemas, self._schemas_read_at = self._noted.known(), self._clock.now()
        return self._schemas

    def identities(self) -> Mapping[int, str]:
        """Return the id of each node's public key, where it is known."""
        return identities(Path(self._home)) if self._home else {}

    def killed(self) -> Mapping[int, tuple[float, str]]:
        """Return {node: (when it was told, why)} of every client that was killed and is back."""
        found = _with_node(Path(self._home)) if self._home else []
        return {client.node: (client.killed_at, client.killed) for client in found if client.killed_at}

    def _read(self, fresh: float) -> Mapping[int, Labels]:
        if self._home and self._clock.now() - self._read_at > fresh:
            self._labels, self._read_at = labels(Path(self._home)), self._clock.now()
        return self._labels


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
