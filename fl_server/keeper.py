"""Keeps the registry of clients, which commands write into, and Flower's state in step, in the SuperLink's process."""

import logging
import threading
import time
from dataclasses import dataclass

from flwr.common.constant import NOOP_FLWR_AID
from flwr.server.superlink.linkstate import LinkStateFactory

from fl_common import enrolment
from fl_server.liveness import Seen, Sessions
from fl_server.registry import Registry

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5  # how soon a revocation reaches who is silent
NOTE_SECONDS = 2.0  # how often is written down who was heard of


@dataclass
class Keeper:
    """Carries what commands wrote into the registry over to Flower's state, and what was seen into the registry."""

    registry: Registry
    sessions: Sessions
    seen: Seen
    state_factory: LinkStateFactory

    def start(self) -> None:
        """Do so for ever, in a thread of its own."""
        threading.Thread(target=self._run, name="keeper", daemon=True).start()

    def _run(self) -> None:
        expelled: frozenset[str] = frozenset()
        noted = time.monotonic()
        while True:
            time.sleep(LOOK_SECONDS)
            try:
                out = self.registry.revoked() | self.registry.forgotten()
                for client in out - expelled:
                    self.expel(client)
                expelled = out
                if time.monotonic() - noted > NOTE_SECONDS:
                    noted = time.monotonic()
                    self.registry.note_seen(self.seen.taken())
            except Exception:  # a full disk, say, must not end revocation
                log.exception("the keeper failed; it goes on")

    def expel(self, client: str) -> None:
        """End the connection of a client that is out. Flower forgets one that was revoked; of one that was forgotten,
        which may come back by a token, it keeps the node.
        """
        state = self.state_factory.state()
        why, key = shut_out(self.registry, client), self.registry.public_key(client)
        node_id = state.get_node_id_by_public_key(key) if key else None
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
