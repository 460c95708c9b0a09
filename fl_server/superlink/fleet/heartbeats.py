"""Heartbeats of nodes whose session is known: answered at once, and written into Flower's database many together.

In Flower each verifies a signature of P-384 and is a transaction of its own; of a thousand nodes that takes a third of
a core. A heartbeat carries nothing: the session, a secret of the process that joined with a signature, is proof enough.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import grpc
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest, SendNodeHeartbeatResponse
from flwr.server.superlink.linkstate import LinkState
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState

from fl_server.store.disk.whole_writes import of_database
from fl_server.superlink.fleet.liveness import LastHeard, Sessions

log = logging.getLogger(__name__)

METHOD = "/flwr.proto.Fleet/SendNodeHeartbeat"
WRITE_SECONDS = 0.2


class Heartbeats:
    """Keeps nodes online that were heard of. One that Flower has forgotten is told so at its next heartbeat."""

    def __init__(self, state: LinkState, sessions: Sessions, seen: LastHeard, interval: float) -> None:
        self._state = state
        self._sessions = sessions
        self._seen = seen
        self._interval = float(f"{interval:g}")  # as nodes are told it
        self._lock = threading.Lock()
        self._heard: set[int] = set()
        self._unknown: set[int] = set()
        self._watch()

    def start(self) -> None:
        """Write what was heard, for ever, in a thread of its own."""
        threading.Thread(target=self._run, name="beats", daemon=True).start()

    def handler(self, client: str, details: grpc.HandlerCallDetails, authenticate: Callable[[], Any]) -> Any:
        """Return what answers a heartbeat; None for another call, or where the session is none that this server began.

        `authenticate` returns what verifies the signature and answers as Flower does.
        """
        node_id = self._sessions.node(client, details.invocation_metadata) if details.method == METHOD else None
        if node_id is None:
            return None

        def beat(request: SendNodeHeartbeatRequest, context: grpc.ServicerContext) -> SendNodeHeartbeatResponse:
            usual = request.node.node_id == node_id and request.heartbeat_interval == self._interval
            if not usual or node_id in self._unknown:
                response: SendNodeHeartbeatResponse = authenticate().unary_unary(request, context)
                with self._lock:
                    self._unknown.discard(node_id)  # who is told that it is unknown joins again
                return response
            self._seen.now(client)
            with self._lock:
                self._heard.add(node_id)
            return SendNodeHeartbeatResponse(success=True)

        return grpc.unary_unary_rpc_method_handler(
            beat,
            request_deserializer=SendNodeHeartbeatRequest.FromString,
            response_serializer=SendNodeHeartbeatResponse.SerializeToString,
        )

    def write(self) -> None:
        """Have Flower take note of all that were heard since the last time, in one transaction."""
        with self._lock:  # until they are written: who says goodbye meanwhile stays away
            with self._state.session() if isinstance(self._state, SqlLinkState) and self._heard else nullcontext():
                known = {node for node in self._heard if self._state.acknowledge_node_heartbeat(node, self._interval)}
            self._unknown |= self._heard - known
            self._heard = set()

    def _watch(self) -> None:
        """See to it that a node which has left, or was lost, is not brought back by what was heard before."""
        deactivate = self._state.deactivate_node

        def deactivated(node_id: int) -> bool:
            with self._lock:
                self._heard.discard(node_id)
            return deactivate(node_id)

        self._state.deactivate_node = deactivated  # type: ignore[method-assign]

    def _run(self) -> None:
        while True:
            time.sleep(WRITE_SECONDS)
            try:
                self.write()
            except Exception as error:
                why = of_database(str(error))
                log.warning("heartbeats cannot be written; they are tried again. %s", why, exc_info=not why)
