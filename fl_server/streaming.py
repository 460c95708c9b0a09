"""Replies as they arrive: push a round's messages over any Grid, then yield each reply once, until all or the deadline.

Late replies are never asked for again. An error about a lost node comes from the SuperLink itself, so every reply is
mapped back to its client by the message it answers.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from flwr.app import Message
from flwr.serverapp import Grid

from fl_common.together import members_of
from fl_server.clock import TimedGrid
from fl_server.pulling import Inbox, push

SHORTEST_PAUSE = 0.004
LONGEST_PAUSE = 0.25
SHARE = 0.03  # a pause is at most this share of the time waited so far


@dataclass(frozen=True)
class Answer:
    """What came of one message: `reply` from `node`, or None where none came in time.

    A reply that stands for several clients (fl_common.together) is the answer to all their messages.
    """

    node: int
    reply: Message | None
    seconds: float


def stream(
    grid: Grid,
    messages: Sequence[Message],
    *,
    deadline: float,
    enough: int = 0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Answer]:
    """Send `messages` now, and return an iterator of one Answer for each, replies first in order of arrival.

    `deadline` is in seconds from now. Messages that could not be sent, and those unanswered at the deadline, come last
    with no reply. enough: how many replies will be taken, where the iterator is closed before its end; 0 for all.
    """
    started = clock()
    if isinstance(grid, TimedGrid):
        grid.expect(deadline=started + deadline, enough=enough)
    nodes = [message.metadata.dst_node_id for message in messages]
    identities = push(grid, messages)
    identities += [""] * (len(nodes) - len(identities))
    waiting = {identity: node for identity, node in zip(identities, nodes, strict=True) if identity}
    unsent = [node for identity, node in zip(identities, nodes, strict=True) if not identity]
    return _answers(grid, waiting, unsent, started, deadline, clock, sleep)


def _answers(
    grid: Grid,
    waiting: dict[str, int],
    unsent: list[int],
    started: float,
    deadline: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> Iterator[Answer]:
    inbox = Inbox(grid)
    last = started
    while waiting and clock() - started < deadline:
        came = False
        for reply in inbox.take(list(waiting)):
            node = waiting.pop(reply.metadata.reply_to_message_id, None)
            if node is not None:
                came = True
                for member in members_of(reply):
                    waiting.pop(member.message_id, None)
                yield Answer(node, reply, clock() - started)
            del reply  # else it lives until the next one has come: two replies in memory
        if came:
            last = clock()
        elif waiting:
            sleep(min(max(SHARE * (clock() - last), SHORTEST_PAUSE), LONGEST_PAUSE))
    for node in [*waiting.values(), *unsent]:
        yield Answer(node, None, clock() - started)
