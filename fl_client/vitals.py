"""What a client does, told to whoever wants to know: its pulse for health probes, its metrics for Prometheus."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import grpc
from flwr.app import ArrayRecord, Message

from fl_client.connection import Connection, Envelope
from fl_common.pulse import PulseFile
from fl_common.wire import SUFFIX

log = logging.getLogger(__name__)


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


class WatchedConnection(Connection):
    """A connection that tells `listeners` what comes and goes over it."""

    def __init__(self, *arguments: Any, listeners: Sequence[Listener], **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._listeners = listeners

    def join(self) -> int:
        """Join, and tell which node this became or why not."""
        try:
            node = super().join()
        except grpc.RpcError as error:
            self._lost(error)
            raise
        for listener in self._listeners:
            listener.joined(node)
        return node

    def beat(self) -> bool:
        """Send a heartbeat, and tell whether the server was heard."""
        try:
            known = super().beat()
        except grpc.RpcError as error:
            self._lost(error)
            raise
        for listener in self._listeners:
            listener.heard()
        return known

    def fetch(self, envelope: Envelope) -> Message:
        """Fetch a message, and tell its size."""
        message = super().fetch(envelope)
        for listener in self._listeners:
            listener.received(_size(message))
        return message

    def send(self, reply: Message, seconds: float) -> None:
        """Send a reply, and tell its kind, time and size."""
        super().send(reply, seconds)
        kind = reply.metadata.message_type.partition(".")[0]
        for listener in self._listeners:
            listener.answered(kind, seconds, _size(reply), failed=reply.has_error())

    def leave(self) -> None:
        """Say goodbye, and tell."""
        super().leave()
        for listener in self._listeners:
            listener.left()

    def _lost(self, error: grpc.RpcError) -> None:
        for listener in self._listeners:
            listener.lost(f"{error.code().name}: {error.details()}")


class Pulse:
    """A listener that keeps the pulse in a client's state directory."""

    def __init__(self, directory: Path, server: str) -> None:
        self._file = PulseFile(directory)
        self._server = server
        self._node = 0
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
        if error := self._file.beat(state, detail, heard=heard):
            log.warning("health probes will fail: %s", error)


def _size(message: Message) -> int:
    """Return the bytes of a message's arrays, those that travel together included."""
    if not message.has_content():
        return 0
    total = 0
    for key, record in message.content.items():
        if isinstance(record, ArrayRecord):
            total += sum(len(array.data) for array in record.values())
        elif key.endswith(SUFFIX):
            total += sum(len(value) for value in record.values() if isinstance(value, bytes))
    return total
