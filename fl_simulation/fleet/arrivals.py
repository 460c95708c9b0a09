"""Messages on their way through a simulated fleet, and their replies in the order in which they arrive."""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf, isnan, nan
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MessageType, MetricRecord, RecordDict

from fl_common.messages.group_reply import members_of
from strategies.replies import WEIGHT

NODE_UNAVAILABLE = 5  # Flower's ErrorCode
GONE = "the client dropped out in the middle of its work"


@dataclass(order=True)
class InFlight:
    """A message on its way. It is answered at `arrival`, in fleet time; inf while that is not known. After
    `expires` nobody asks for it any more.

    dropout: the share of its work after which its client drops out; NaN where it does not. What then arrives is the
    server's own notice. reply: there where it had to be made to know how long it takes.
    """

    arrival: float
    number: int
    message: Message = field(compare=False)
    deadline: float = field(compare=False)
    dropout: float = field(compare=False)
    expires: float = field(compare=False)
    reply: Message | None = field(default=None, compare=False)

    @property
    def identity(self) -> str:
        """The message's id."""
        return str(self.number)

    @property
    def lost(self) -> bool:
        """Whether its client drops out."""
        return not isnan(self.dropout)

    def forget(self) -> None:
        """Let go of the arrays: nobody wants the answer, only to know when it comes."""
        self.message.content = RecordDict()
        self.reply = None

    def notes(self) -> list[Any]:
        """Return what a checkpoint keeps of it: its answer is dropped when it comes."""
        node = self.message.metadata.dst_node_id
        return [self.number, node, self.arrival, self.lost, self.expires]

    @classmethod
    def of(cls, notes: Sequence[Any]) -> "InFlight":
        """Return a message on its way as `notes` left it, without its arrays."""
        number, node, arrival, lost, expires = notes
        message = Message(RecordDict(), int(node), MessageType.TRAIN)
        return cls(float(arrival), int(number), message, inf, 0.0 if lost else nan, float(expires))

    def known(self) -> Message | None:
        """Return the reply that need not be made any more."""
        if self.lost:
            return Message(Error(NODE_UNAVAILABLE, GONE), reply_to=self.message)
        return self.reply


def first(coming: Iterable[InFlight], wanted: int) -> list[InFlight]:
    """Return the first of those that arrive of which `wanted` are replies of clients; all where it is 0."""
    chosen: list[InFlight] = []
    for sent in sorted(coming):
        chosen.append(sent)
        wanted -= not sent.lost
        if wanted == 0:
            break
    return chosen


def in_order(coming: Sequence[InFlight], made: Iterable[Message]) -> Iterator[tuple[float, Message]]:
    """Yield the replies to `coming`, which is sorted, each with the moment of its arrival.

    made: the replies that are made only now, in whatever order. One that stands for several clients arrives with the
    last of them. A reply is held back only while an earlier one may still be made.
    """
    sent = {each.identity: each for each in coming}
    ready = [(each.arrival, each.number, reply) for each in coming if (reply := each.known()) is not None]
    unmade = dict.fromkeys(each.identity for each in coming if each.known() is None)
    for reply in made:
        answered = [reply.metadata.reply_to_message_id, *(member.message_id for member in members_of(reply))]
        arrival = max(sent[identity].arrival for identity in answered)
        heapq.heappush(ready, (arrival, sent[answered[0]].number, reply))
        for identity in answered:
            unmade.pop(identity, None)
        horizon = sent[next(iter(unmade))].arrival if unmade else inf
        while ready and ready[0][0] <= horizon:
            yield _earliest(ready)
    while ready:
        yield _earliest(ready)


def bytes_of(message: Message | None) -> int:
    """Return the bytes of a message's arrays."""
    if message is None or not message.has_content():
        return 0
    records = [record for record in message.content.values() if isinstance(record, ArrayRecord)]
    return sum(len(array.data) for record in records for array in record.values())


def examples_of(reply: Message | None) -> float:
    """Return how many examples a reply says that its client had; 0 where it does not say."""
    if reply is None or not reply.has_content():
        return 0.0
    told = (record.get(WEIGHT) for record in reply.content.values() if isinstance(record, MetricRecord))
    return next((float(number) for number in told if isinstance(number, int | float) and number > 0), 0.0)


def round_of(message: Message) -> int:
    """Return the round that a message belongs to; 0 where it does not say."""
    told = (record.get("server-round") for record in message.content.values() if isinstance(record, ConfigRecord))
    return next((number for number in told if isinstance(number, int)), 0)


def _earliest(ready: list[tuple[float, int, Message]]) -> tuple[float, Message]:
    arrival, _, reply = heapq.heappop(ready)
    return arrival, reply
