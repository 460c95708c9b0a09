"""A Flower Grid without a network: a population of numbered nodes, whose messages an engine answers, lazily.

The server's code runs on it unchanged. Nothing is kept for a node until it is asked, so that a population may be large.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import Any, Protocol

from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid

from fl_common.errors import SettingsError

SERVER = 2**63  # the id of the server's own end; nodes are 1 to population
FAILED = 2  # Flower's ErrorCode.CLIENT_APP_RAISED_EXCEPTION
POLL_SECONDS = 0.01


class Engine(Protocol):
    """What stands behind a grid: it answers a round's messages, each once, in any order, one after the other."""

    def answer(self, messages: Sequence[Message]) -> Iterator[Message]:
        """Yield the replies to `messages`, as they are made. A client that fails gives an error reply."""


class SimulatedGrid(Grid):
    """Nodes 1 to `population`. Replies are made when they are pulled, and handed over one at a time."""

    simulated = True  # what only a simulation can obey is not refused

    def __init__(self, population: int, engine: Engine, *, run_id: int = 1) -> None:
        if population < 1:
            raise SettingsError(f"a population has at least 1 client; got {population}.")
        self._nodes = range(1, population + 1)
        self._engine = engine
        self._run_id = run_id
        self._run: Any = None
        self._numbers = count(1)
        self._waiting: dict[str, Message] = {}

    def set_run(self, run: Any) -> None:
        """Keep the run that Flower's tools set."""
        self._run = run

    @property
    def run(self) -> Any:
        """Return the run that was set."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Sequence[int]:
        """Return all nodes, as a range."""
        return self._nodes

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Take messages and return their ids; "" for one to a node that does not exist."""
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        """Yield the replies to those of the messages that were not answered yet."""
        asked = [self._waiting.pop(identity) for identity in list(message_ids) if identity in self._waiting]
        return self._engine.answer(asked) if asked else iter(())

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages and yield their replies."""
        return self.pull_messages(self.push_messages(messages))

    def _push(self, message: Message) -> str:
        if message.metadata.dst_node_id not in self._nodes:
            return ""
        identity = str(next(self._numbers))
        message.metadata.__dict__ |= {
            "_run_id": self._run_id,
            "_message_id": identity,
            "_src_node_id": SERVER,
            "_created_at": time.time(),
        }
        self._waiting[identity] = message
        return identity


def failure(message: Message, error: Exception) -> Message:
    """Return the error reply of a client whose code raised, as Flower's own nodes give it."""
    return Message(Error(code=FAILED, reason=f"{type(error).__name__}: {error}"), reply_to=message)
