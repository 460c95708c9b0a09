"""A connection to the server whose traffic is told to listeners: the client's pulse, its metrics."""

from collections.abc import Sequence
from typing import Any

import grpc
from flwr.app import ArrayRecord, Message

from fl_client.link.connection import Connection, Envelope
from fl_client.observers.health import Listener
from fl_common.messages.packed_arrays import SUFFIX
from fl_common.trust.untrusted_text import clean


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

    def poll(self) -> Envelope | None:
        """Look for a message, and tell where the server cannot be asked."""
        try:
            return super().poll()
        except grpc.RpcError as error:
            self._lost(error)
            raise

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
            listener.lost(f"{error.code().name}: {clean(error.details())}")


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
