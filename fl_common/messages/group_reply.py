"""One reply that stands for many clients whose mean was already taken, as the simulation's programs take it.

It is made in the server's own process only: what comes over a network is never of this class, so no client can speak
for others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flwr.app import Message, RecordDict


@dataclass(frozen=True)
class Member:
    """A client that the reply stands for: the message it answers, its number of examples and its own metrics."""

    message_id: str
    examples: float
    metrics: Mapping[str, float]


class Together(Message):
    """A reply whose arrays are the members' mean weighted by examples, and whose "num-examples" is their sum."""

    def __init__(self, content: RecordDict, reply_to: Message, members: Sequence[Member]) -> None:
        super().__init__(content, reply_to=reply_to)
        self.members = members


def members_of(message: Message) -> Sequence[Member]:
    """Return whom a reply stands for beside its sender's own answer; none for an ordinary reply."""
    return message.members if isinstance(message, Together) else ()
