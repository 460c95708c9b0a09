"""Keeps the registry of clients, which commands write into, and Flower's state in step, in the SuperLink's process."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from flwr.common.constant import NOOP_FLWR_AID
from flwr.server.superlink.linkstate import LinkStateFactory

from fl_common.trust import enrolment
from fl_server.access.client_registry import Registry
from fl_server.access.data_schemas import Schemas
from fl_server.store.disk.whole_writes import of_database
from fl_server.superlink.fleet.liveness import LastHeard, Sessions

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5  # how soon a revocation reaches who is silent
NOTE_SECONDS = 2.0  # how often is written down who was heard of
FORGET_SECONDS = 60.0  # how often is looked for who is gone
CLOCK_SECONDS = 60.0  # of a difference between two looks: a clock that was set
BACK_SECONDS = 600.0  # that clients have to come back to a server that was away itself


@dataclass
class RegistrySync:
    """Carries what commands wrote into the registry over to Flower's state, and what was seen into the registry.

    forget_after: seconds of silence after which a client is forgotten, with what it told of its data; 0: never.
    """

    registry: Registry
    sessions: Sessions
    seen: LastHeard
    state_factory: LinkStateFactory
    schemas: Schemas
    forget_after: float = 0.0
    clock: Callable[[], float] = time.time
    ticks: Callable[[], float] = time.monotonic
    _expelled: frozenset[str] = field(default=frozenset(), init=False)
    _noted: float = field(default=0.0, init=False)
    _looked: float = field(default=0.0, init=False)
    _started: float = field(default=0.0, init=False)
    _ahead: float = field(default=0.0, init=False)  # the clock, of the ticks

    def start(self) -> None:
        """Do so for ever, in a thread of its own."""
        threading.Thread(target=self._run, name="keeper", daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(LOOK_SECONDS)
            try:
                self.turn()
            except Exception as error:  # noqa: BLE001  it must not end revocation
                why = of_database(str(error)) or str(error)
                log.warning("the registry of clients is not kept up; it is tried again. %s", why)

    def turn(self) -> None:
        """Expel who is out, note who was seen, and forget who is gone."""
        now, ticks = self.clock(), self.ticks()
        self._look_at_clock(now, ticks)
        out = self.registry.revoked() | self.registry.forgotten()
        for client in out - self._expelled:
            self.expel(client)
        self._expelled = out
        if ticks - self._noted > NOTE_SECONDS:
            self._noted = ticks
            self.registry.note_seen(self.seen.taken())
        if self.forget_after and ticks - self._looked > FORGET_SECONDS:
            self._looked = ticks
            if ticks - self._started >= min(self.forget_after, BACK_SECONDS):
                self._forget(now)

    def _look_at_clock(self, now: float, ticks: float) -> None:
        """Begin to wait for clients anew where the machine's clock was set, or the machine slept: nobody was silent."""
        ahead = now - ticks
        if not self._started or abs(ahead - self._ahead) > CLOCK_SECONDS:
            self._started = ticks
        self._ahead = ahead

    def _forget(self, now: float) -> None:
        """Forget who was not heard of for long. A server that was away gives all of them time to come back first."""
        for client in self.registry.clients():
            gone = now - (client.seen or client.since) > self.forget_after and client.revoked is None
            if gone and not self.sessions.is_open(client.identity):
                self.registry.forget(client.identity)
                log.warning("client %s is forgotten: it was not heard of for too long", client.identity)

    def expel(self, client: str) -> None:
        """End the connection of a client that is out, and drop what it told of its data. Flower forgets one that was
        revoked; of one that was forgotten, which may come back by a token, it keeps the node.
        """
        state = self.state_factory.state()
        why, key = shut_out(self.registry, client), self.registry.public_key(client)
        node_id = state.get_node_id_by_public_key(key) if key else None
        if node_id is not None and why:
            self.schemas.drop(node_id)
        if node_id is not None and why == enrolment.REVOKED:
            state.delete_node(NOOP_FLWR_AID, node_id)
        elif node_id is not None and why:
            state.deactivate_node(node_id)
        if why:
            self.sessions.expel(client, why)


def shut_out(registry: Registry, client: str) -> str:
    """Return what a client that is out is told; "" for one that may come."""
    if client in registry.revoked():
        return enrolment.REVOKED
    return enrolment.UNKNOWN if client in registry.forgotten() else ""
