"""Replies as they arrive: push a round's messages over any Grid, then yield each reply once, until all or the deadline.

What comes after that is never part of this stream: `open` says which messages are still to be answered, and
fl_server/rounds/stragglers.py drops their replies. An error about a lost node comes from the SuperLink itself, so every
reply is mapped back to its client by the message it answers.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Self

from flwr.app import Message
from flwr.serverapp import Grid

from fl_common.messages.group_reply import members_of
from fl_server.rounds.clock import Clock, TimedGrid
from fl_server.superlink.fleet.reply_bounds import Bounds
from fl_server.superlink.grid.pulling import LEFT, NODE_UNAVAILABLE, Inbox
from fl_server.superlink.grid.pushing import push

SHORTEST_PAUSE = 0.004
LONGEST_PAUSE = 0.25
SHARE = 0.03  # a pause is at most this share of the time waited so far
LOST = (3, NODE_UNAVAILABLE, LEFT)  # the first is Flower's ErrorCode.MESSAGE_UNAVAILABLE


@dataclass(frozen=True)
class Answer:
    """What came of one message: `reply` from `node`, or None where none came in time.

    A reply that stands for several clients (fl_common.messages.group_reply) is the answer to all their messages. `lost`
    says that the message will never be answered, because its node is gone or it could not be sent.
    """

    node: int
    reply: Message | None
    seconds: float
    lost: bool = False
    others: tuple[int, ...] = ()

    @property
    def nodes(self) -> tuple[int, ...]:
        """Everyone that this is the answer of."""
        return (self.node, *self.others)


class Stream:
    """Sends `messages` when it is made, and iterates over one Answer for each, replies first in order of arrival.

    `deadline` is in seconds from now. Messages that could not be sent are answered first; those unanswered at the
    deadline come last, with no reply. enough: how many good replies will be taken before the iteration is given up.
    """

    def __init__(
        self,
        grid: Grid,
        messages: Sequence[Message],
        *,
        deadline: float,
        enough: int = 0,
        clock: Clock | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        self._grid = grid
        self._clock = clock or Clock()
        self._started = self._clock.now()
        self._deadline = self._started + deadline
        self._inbox = Inbox(grid, bounds)
        self._unsent: list[int] = []
        self.open: dict[str, int] = {}  # id of a message that waits for its answer -> its node
        self.came: set[str] = set()
        self.asked = 0
        self._answers = self._run()
        self.ask(messages, enough=enough)

    def ask(self, messages: Sequence[Message], *, enough: int = 0) -> None:
        """Send messages: the first ones, or some in place of others. The deadline stays."""
        if not messages:
            return
        if isinstance(self._grid, TimedGrid):
            self._grid.expect(deadline=self._deadline, enough=enough)
        nodes = [message.metadata.dst_node_id for message in messages]
        identities = push(self._grid, messages)
        identities += [""] * (len(nodes) - len(identities))
        self.asked += len(nodes)
        self.open |= {identity: node for identity, node in zip(identities, nodes, strict=True) if identity}
        self._unsent += [node for identity, node in zip(identities, nodes, strict=True) if not identity]

    @property
    def expected(self) -> int:
        """How many messages are still to be answered."""
        return len(self.open) + len(self._unsent)

    @property
    def over(self) -> bool:
        """Whether the deadline has passed."""
        return self._clock.now() >= self._deadline

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Answer:
        return next(self._answers)

    def close(self) -> dict[str, int]:
        """Give up what is still open, and return it. `came` holds those whose replies were there, but not taken."""
        self._answers.close()
        self.came |= self._inbox.close()
        return self.open

    def _run(self) -> Generator[Answer]:
        last = self._started
        while (self._unsent or self.open) and self._clock.now() < self._deadline:
            while self._unsent:
                yield Answer(self._unsent.pop(0), None, self._seconds(), lost=True)
            came = False
            for reply in self._inbox.take(list(self.open)):
                node = self.open.pop(reply.metadata.reply_to_message_id, None)
                if node is not None:
                    came = True
                    yield Answer(node, reply, self._seconds(), lost=_is_lost(reply), others=self._members(reply))
                del reply  # else it lives until the next one has come: two replies in memory
            if came:
                last = self._clock.now()
            elif self.open:
                now = self._clock.now()
                pause = min(max(SHARE * (now - last), SHORTEST_PAUSE), LONGEST_PAUSE)
                self._clock.sleep(max(0.0, min(pause, self._deadline - now)))
        for node in [*self.open.values(), *self._unsent]:
            yield Answer(node, None, self._seconds())

    def _members(self, reply: Message) -> tuple[int, ...]:
        found = [self.open.pop(member.message_id, None) for member in members_of(reply)]
        return tuple(node for node in found if node is not None)

    def _seconds(self) -> float:
        return self._clock.now() - self._started


def _is_lost(reply: Message) -> bool:
    return reply.has_error() and reply.error.code in LOST
