"""Who is there: the sessions of nodes, in the SuperLink's process.

Flower refuses a key that comes back before its heartbeats have run out, gives what the lost process had in hand up for
lost until the round's deadline, and refuses heartbeats more often than every 10 s. Here a node that proves its key
takes its place again at once, messages that it never answered are handed out again, and the interval is the server's.
"""

import hmac
import logging
import threading
import time
from collections.abc import Callable, Sequence

import grpc
from flwr.server.superlink.fleet.message_handler import message_handler
from flwr.server.superlink.linkstate import LinkState
from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.supercore.utils import get_metadata_str, uint64_to_int64

from fl_common.trust.enrolment import SESSION_HEADER

log = logging.getLogger(__name__)

PATIENCE = 2  # Flower counts a node out after so many intervals without a heartbeat
SHORTEST_INTERVAL = 0.5
MINIMUM = "HEARTBEAT_MIN_INTERVAL"
GRACE_SECONDS = 1.5  # a connection that breaks may be there again so soon; then nothing was lost

UNANSWERED = """
UPDATE message_ins SET delivered_at = '' WHERE dst_node_id = :node AND delivered_at != ''
AND NOT EXISTS (SELECT 1 FROM message_res WHERE reply_to_message_id = message_ins.message_id)
"""


def interval(lost_after_seconds: float) -> float:
    """Return how often nodes must be heard of so that a silent one is noticed in time."""
    return lost_after_seconds / PATIENCE


def allow_short_intervals() -> None:
    """Let Flower accept heartbeats more often than every 10 s."""
    getattr(message_handler, MINIMUM)  # a Flower that has it no more is refused
    setattr(message_handler, MINIMUM, SHORTEST_INTERVAL)


def take_place(state: LinkState, node_id: int, heartbeat_interval: float) -> bool:
    """Put a node online, whether it was or not, and hand out again what it was given and never answered.

    False where Flower will not have it, because it was unregistered.
    """
    online = state.activate_node(node_id, heartbeat_interval) or state.acknowledge_node_heartbeat(
        node_id, heartbeat_interval
    )
    if online:
        hand_out_again(state, node_id)
    return bool(online)


def hand_out_again(state: LinkState, node_id: int) -> None:
    """Make the messages that a node was given and did not answer wait for it again."""
    if isinstance(state, SqlLinkState):
        state.query(UNANSWERED, {"node": uint64_to_int64(node_id)})
    elif isinstance(state, InMemoryLinkState):
        with state.lock:
            for identity, message in state.message_ins_store.items():
                answered = identity in state.message_ins_id_to_message_res_id
                if message.metadata.dst_node_id == node_id and not answered:
                    message.metadata.delivered_at = ""


Close = Callable[[grpc.StatusCode, str], None]


class Sessions:
    """Which process speaks under each key, and whether its connection is open. Sessions are random texts.

    The newest process under a key wins, as it does after a crash; an older one is told so, and ends.
    """

    def __init__(self, *, grace: float = GRACE_SECONDS) -> None:
        self._grace = grace
        self._lock = threading.Lock()
        self._current: dict[str, str] = {}
        self._nodes: dict[str, int] = {}  # of those that have not said goodbye
        self._open: dict[str, Close] = {}
        self._timers: dict[str, threading.Timer] = {}

    def begin(self, client: str, session: str, node_id: int) -> None:
        """Take note that `session` speaks for a client, whose node this is, from now on."""
        with self._lock:
            self._current[client], self._nodes[client] = session, node_id

    def node(self, client: str, metadata: Sequence[tuple[str, str | bytes]]) -> int | None:
        """Return the node of the client whose session a call names; None for another, or one from before a restart."""
        session = get_metadata_str(metadata, SESSION_HEADER) or ""
        known = self._current.get(client, "")
        return self._nodes.get(client) if known and hmac.compare_digest(known.encode(), session.encode()) else None

    def is_current(self, client: str, session: str) -> bool:
        """Say whether `session` may speak for a client: no other has begun since this process started."""
        with self._lock:
            return self._current.get(client, session) == session

    def is_open(self, client: str) -> bool:
        """Say whether a client's connection is open."""
        with self._lock:
            return client in self._open

    def __len__(self) -> int:
        """Return how many connections are open."""
        return len(self._open)

    def opened(self, client: str, close: Close) -> None:
        """Take note that a client's connection is open. `close` ends it from this side."""
        with self._lock:
            self._open[client] = close
            timer = self._timers.pop(client, None)
        if timer is not None:
            timer.cancel()

    def closed(self, client: str, close: Close, lost: Callable[[], None]) -> None:
        """Take note that it ended. Unless another opens in time, `lost` is called."""
        with self._lock:
            if self._open.get(client) is not close:
                return  # a newer one is open already
            del self._open[client]
            timer = threading.Timer(self._grace, self._is_lost, (client, lost))
            timer.daemon = True
            self._timers[client] = timer
        timer.start()

    def left(self, client: str) -> None:
        """Take note that a client said goodbye: the end of its connection means no more."""
        with self._lock:
            self._open.pop(client, None)
            self._nodes.pop(client, None)
            timer = self._timers.pop(client, None)
        if timer is not None:
            timer.cancel()

    def expel(self, client: str, why: str) -> None:
        """End a client's open connection, and say why."""
        with self._lock:
            close = self._open.pop(client, None)
            self._nodes.pop(client, None)
        if close is not None:
            close(grpc.StatusCode.UNAUTHENTICATED, why)

    def close_all(self) -> None:
        """End every open connection, for the server stops: nobody counts as lost for that."""
        with self._lock:
            closing, self._open = list(self._open.values()), {}
        for close in closing:
            close(grpc.StatusCode.UNAVAILABLE, "the server stops")

    def _is_lost(self, client: str, lost: Callable[[], None]) -> None:
        with self._lock:
            self._timers.pop(client, None)
            if client in self._open:
                return
        lost()


class LastHeard:
    """When each client was last heard of, until somebody writes it down."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._moments: dict[str, float] = {}

    def now(self, client: str) -> None:
        """Take note that a client was heard of now."""
        with self._lock:
            self._moments[client] = self._clock()

    def taken(self) -> dict[str, float]:
        """Return what was noted since the last time."""
        with self._lock:
            moments, self._moments = self._moments, {}
        return moments
