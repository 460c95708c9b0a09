"""A Grid without a network, and clients for it: real ClientApps, or functions that answer as a hostile client might."""

import random
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

SUPERLINK = 1  # the id under which the SuperLink itself sends and answers


@dataclass(frozen=True)
class Late:
    """An answer that is there only when it has been asked for `polls` times."""

    reply: Message
    polls: int


Node = Callable[[Message], Message | Late | None]


class InProcessGrid(Grid):
    """Nodes are functions; one that returns None never answers. With `rng`, replies come in any order, one a pull."""

    def __init__(self, nodes: Mapping[int, Node], *, rng: random.Random | None = None) -> None:
        self.nodes = dict(nodes)
        self.sent: list[Message] = []
        self._rng = rng
        self._answers: dict[str, tuple[Message, int]] = {}

    def set_run(self, run: Any) -> None:
        raise AssertionError("nothing sets the run of a grid in process")

    @property
    def run(self) -> Any:
        raise AssertionError("nothing asks for the run of a grid in process")

    def create_message(self, *arguments: Any, **named: Any) -> Message:
        raise AssertionError("create_message is deprecated")

    def get_node_ids(self) -> Iterable[int]:
        return list(self.nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        asked = [identity for identity in message_ids if identity in self._answers]
        if self._rng is not None and asked:
            asked = [self._rng.choice(asked)]
        ready = []
        for identity in asked:
            reply, polls = self._answers.pop(identity)
            if polls > 0:
                self._answers[identity] = (reply, polls - 1)
            else:
                ready.append(reply)
        return ready

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return self.pull_messages(self.push_messages(messages))

    def _push(self, message: Message) -> str:
        node = message.metadata.dst_node_id
        if node not in self.nodes:
            return ""
        identity = uuid.uuid4().hex
        message.metadata.__dict__ |= {"_message_id": identity, "_src_node_id": SUPERLINK, "_run_id": 7}
        self.sent.append(message)
        answer = self.nodes[node](message)
        if isinstance(answer, Late):
            self._answers[identity] = (answer.reply, answer.polls)
        elif answer is not None:
            self._answers[identity] = (answer, 0)
        return identity


def client(app: ClientApp, **node_config: Any) -> Node:
    """A ClientApp as a node. An exception of it becomes an error reply, as it does in a SuperNode."""
    context = Context(run_id=7, node_id=0, node_config=node_config, state=RecordDict(), run_config={})

    def answer(message: Message) -> Message:
        try:
            return app(message, context)
        except Exception as error:
            return Message(Error(code=2, reason=f"{type(error).__name__}: {error}"), reply_to=message)

    return answer


def lost(message: Message) -> Message:
    """What the SuperLink itself answers for a node that is gone: an error, and not in the node's name."""
    reply = Message(Error(code=5, reason="Node unavailable."), reply_to=message)
    reply.metadata.__dict__["_src_node_id"] = SUPERLINK
    return reply
