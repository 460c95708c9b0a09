"""What a client does, told to whoever wants to know; and its pulse, for health probes. Imports little."""

import logging
from pathlib import Path
from typing import Protocol

from fl_common.processes.health_file import HealthFile

log = logging.getLogger(__name__)

JOINED = "joined"  # a file beside the pulse, there while the client is in: the cheapest of all probes looks at its age


class Listener(Protocol):
    """Is told what happens. Called from the node's threads; must not raise."""

    def joined(self, node: int) -> None:
        """The server took this client in."""

    def heard(self) -> None:
        """The server answered a heartbeat."""

    def lost(self, why: str) -> None:
        """The server cannot be reached."""

    def received(self, size: int) -> None:
        """A message came, with arrays of `size` bytes."""

    def answered(self, kind: str, seconds: float, size: int, *, failed: bool) -> None:
        """A message of a kind ("train", "evaluate") was answered after `seconds`, with arrays of `size` bytes."""

    def left(self) -> None:
        """The client said goodbye."""


class HealthObserver:
    """A listener that keeps the pulse in a directory, and the file by which a client is known to be in."""

    def __init__(self, directory: Path, server: str) -> None:
        self._file = HealthFile(directory)
        self._server = server
        self._node = 0
        self._joined = directory / JOINED
        self._beat("starting", f"for {server}")

    def joined(self, node: int) -> None:
        """Take note."""
        self._node = node
        self.heard()

    def heard(self) -> None:
        """Take note."""
        self._beat("joined", f"node {self._node} of {self._server}", heard=True)

    def lost(self, why: str) -> None:
        """Take note."""
        self._beat("connecting", f"no connection to {self._server} ({why})")

    def received(self, size: int) -> None:
        """Nothing to note."""

    def answered(self, kind: str, seconds: float, size: int, *, failed: bool) -> None:
        """Nothing to note."""

    def left(self) -> None:
        """Take note."""
        self._beat("left", f"left {self._server}")

    def _beat(self, state: str, detail: str, *, heard: bool = False) -> None:
        if error := self._file.beat(state, detail, heard=heard) or self._mark(there=heard):
            log.warning("health probes will fail: %s", error)

    def _mark(self, *, there: bool) -> str:
        try:
            self._joined.touch() if there else self._joined.unlink(missing_ok=True)
        except OSError as error:
            return f"{self._joined} cannot be written: {error.strerror}"
        return ""
