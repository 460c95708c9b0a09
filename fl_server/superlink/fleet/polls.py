"""Polls of nodes that wait: answered without a signature to verify or a row to look for, while nothing has come.

In Flower each poll verifies a signature of P-384 and writes to the database; of a thousand nodes that wait, that takes
more than two cores. Messages come in through this very process, so it knows which boxes are as empty as they were.
"""

import threading
from collections.abc import Callable
from typing import Any

import grpc
from flwr.app import Message
from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse
from flwr.server.superlink.linkstate import LinkState

from fl_common.trust import enrolment
from fl_server.superlink.fleet.liveness import LastHeard, Sessions

METHOD = "/flwr.proto.Fleet/PullMessages"
POLLS_PER_SECOND = 400  # of all nodes together, while they are idle
FEW = 40  # so many nodes may poll as they like


class Mailboxes:
    """Counts what is put into each node's box: one that was found empty is empty until the next message."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._filled: dict[int, int] = {}  # node -> how often something was put in
        self._empty: dict[int, int] = {}  # node -> that number, as it was before the box was found empty

    def watch(self, state: LinkState) -> None:
        """Be told of each message that the state takes for a node, from now on."""
        store = state.store_message_ins

        def stored(message: Message) -> str | None:
            identity = store(message)
            self.filled(message.metadata.dst_node_id)
            return identity

        state.store_message_ins = stored  # type: ignore[method-assign]

    def filled(self, node: int) -> None:
        """Take note that something may wait for a node."""
        with self._lock:
            self._filled[node] = self._filled.get(node, 0) + 1

    def look(self, node: int) -> int:
        """Return what `found_empty` is to be told; to be called before the box is looked into."""
        return self._filled.get(node, 0)

    def found_empty(self, node: int, look: int) -> None:
        """Take note that nothing waited for a node, at some time after `look`."""
        self._empty[node] = look

    def is_empty(self, node: int) -> bool:
        """Say whether nothing has been put in since the box was found empty."""
        return self._empty.get(node) == self._filled.get(node, 0)


class Polls:
    """Answers the polls of nodes whose session is known. Everything else goes the usual way, and so does a message."""

    def __init__(self, state: LinkState, sessions: Sessions, seen: LastHeard) -> None:
        self._sessions = sessions
        self._seen = seen
        self.mailboxes = Mailboxes()
        self.mailboxes.watch(state)

    def handler(self, client: str, details: grpc.HandlerCallDetails, authenticate: Callable[[], Any]) -> Any:
        """Return what answers a poll; None for another call, or where the session is none that this server began.

        While nothing waits for a node the session, a secret of that process, is proof enough: it is told nothing.
        `authenticate` returns what verifies its signature first.
        """
        node_id = self._sessions.node(client, details.invocation_metadata) if details.method == METHOD else None
        if node_id is None:
            return None

        def poll(request: PullMessagesRequest, context: grpc.ServicerContext) -> PullMessagesResponse:
            self._space(context)
            if request.node.node_id == node_id and self.mailboxes.is_empty(node_id):
                self._seen.now(client)
                return PullMessagesResponse()
            look = self.mailboxes.look(node_id)
            response: PullMessagesResponse = authenticate().unary_unary(request, context)  # which aborts, or is right
            if not response.messages_list:
                self.mailboxes.found_empty(node_id, look)
            return response

        return grpc.unary_unary_rpc_method_handler(
            poll,
            request_deserializer=PullMessagesRequest.FromString,
            response_serializer=PullMessagesResponse.SerializeToString,
        )

    def _space(self, context: grpc.ServicerContext) -> None:
        """Tell a node of many how far apart its polls are to be."""
        nodes = len(self._sessions)
        if nodes > FEW:
            context.set_trailing_metadata(((enrolment.POLL_HEADER, f"{nodes / POLLS_PER_SECOND:g}"),))
