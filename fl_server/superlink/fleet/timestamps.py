"""The stamps of time in Flower's database, by a clock that is steady; in the SuperLink's process.

Flower notes until when a run is claimed, a node is there and a message holds, and when a line was logged, by the wall
clock. One that is set would end runs, lose messages, and hide lines of a log from those who follow it.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

from flwr.app import Message
from flwr.server.superlink.fleet.grpc_rere import node_auth_server_interceptor
from flwr.server.superlink.linkstate import sql_linkstate
from flwr.server.superlink.linkstate import utils as linkstate_utils
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.server.utils import validator
from flwr.supercore.corestate import sql_corestate
from flwr.superlink.servicer.control import control_servicer

from fl_server.processes.steady_clock import Steady, wall

LEAST_TTL = 1e-3  # seconds: of a reply that comes too late, which Flower then refuses
STEADY = (sql_corestate, sql_linkstate, linkstate_utils, control_servicer)  # what writes stamps, and compares them
REPLIED_TO = "SELECT created_at, ttl FROM message_ins WHERE message_id = :id"


class Nearest:
    """The time that a client's signature is compared with: the wall clock's or the steady one, whichever is nearer.

    One of the two may be wrong, since the machine's clock was set; and signatures hold for minutes.
    """

    def __init__(self, steady: Steady) -> None:
        self._steady = steady
        self._local = threading.local()

    def to(self, stamp: str) -> None:
        """Take note of what this thread compares next."""
        self._local.moment = None
        with suppress(ValueError, TypeError):  # malformed: Flower says so
            moment = datetime.fromisoformat(stamp)
            self._local.moment = min(wall(), self._steady.now(), key=lambda each: abs(each - moment))

    def now(self) -> datetime:
        """Return the time, for what this thread compares."""
        return getattr(self._local, "moment", None) or wall()


def install(steady: Steady) -> Nearest:
    """Have Flower's database, in this process, live by `steady`; its node authentication by what is returned."""
    nearest = Nearest(steady)
    for module in STEADY:
        _replace(module, "now", steady.now)
    _replace(validator, "now", steady.earlier)
    _replace(node_auth_server_interceptor, "now", nearest.now)
    _replace(SqlLinkState, "store_message_ins", _asking(SqlLinkState.store_message_ins, steady))
    _replace(SqlLinkState, "store_message_res", _answering(SqlLinkState.store_message_res, steady))
    return nearest


def _asking(store: Callable[..., Any], steady: Steady) -> Callable[..., Any]:
    def stamped(state: SqlLinkState, message: Message) -> Any:
        message.metadata.__dict__["_created_at"] = steady.timestamp()
        return store(state, message)

    return stamped


def _answering(store: Callable[..., Any], steady: Steady) -> Callable[..., Any]:
    """A reply holds as long as the message that it answers, whatever its node's clock says."""

    def stamped(state: SqlLinkState, message: Message) -> Any:
        rows = state.query(REPLIED_TO, {"id": message.metadata.reply_to_message_id})
        if rows:
            now = steady.timestamp()
            left = float(rows[0]["created_at"] + rows[0]["ttl"] - now)
            message.metadata.__dict__ |= {"_created_at": now, "_ttl": max(left, LEAST_TTL)}
        return store(state, message)

    return stamped


def _replace(owner: Any, name: str, value: object) -> None:
    """Replace what Flower calls by a name that it must have: a Flower that has it no more is refused."""
    getattr(owner, name)
    setattr(owner, name, value)
