"""Nodes that said goodbye: what they were still asked is answered as left, not as lost, in the SuperLink's process."""

import threading
from typing import Any

from flwr.app import Error, Message
from flwr.app.message import make_message
from flwr.server.superlink.linkstate import LinkState

from fl_server.superlink.fleet.reception import addressee
from fl_server.superlink.grid.pulling import LEFT, NODE_UNAVAILABLE

GOODBYE = "the client said goodbye before it had answered"


class Departures:
    """Knows who has left since this process started and is not back."""

    def __init__(self, state: LinkState) -> None:
        self._state = state
        self._lock = threading.Lock()
        self._left: set[int] = set()
        activate, answers = state.activate_node, state.get_message_res

        def activated(node_id: int, heartbeat_interval: float) -> bool:
            self.back(node_id)
            return activate(node_id, heartbeat_interval)

        def answered(message_ids: set[str]) -> list[Message]:
            return [self._named(reply) for reply in answers(message_ids)]

        state.activate_node, state.get_message_res = activated, answered  # type: ignore[method-assign]

    def left(self, node_id: int) -> None:
        """Take note that a node says goodbye; to be called before Flower counts it out."""
        with self._lock:
            self._left.add(node_id)

    def back(self, node_id: int) -> None:
        """Take note that a node is there again."""
        with self._lock:
            self._left.discard(node_id)

    def _named(self, reply: Message) -> Message:
        """Return what Flower answers in the place of a node, with the reason where that is a goodbye."""
        if not (self._left and reply.has_error() and reply.error.code == NODE_UNAVAILABLE):
            return reply
        if addressee(self._state, reply.metadata.reply_to_message_id) not in self._left:
            return reply
        return _goodbye(reply)


def _goodbye(reply: Message) -> Message:
    identity: dict[str, Any] = reply.metadata.__dict__
    identity["_message_id"] = ""
    message = make_message(metadata=reply.metadata, error=Error(code=LEFT, reason=GOODBYE))
    identity["_message_id"] = message.object_id
    return message
