"""The cohort of a phase: whom it asks, what each is told, how many replies it wants, and who stands in for the lost."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from flwr.app import ConfigRecord, Message
from flwr.serverapp import Grid

from fl_common.errors import RoundError
from fl_common.messages.records import with_fields
from fl_common.settings.schema import Settings
from fl_server.rounds.clients.leases import Leases
from fl_server.rounds.clock import Clock

MESSAGE_MARGIN_SECONDS = 30.0
LOOKS = 3


@dataclass
class Cohort:
    """Whom a phase asks: `messages`, of whose good replies it takes the first `wanted` and needs `quorum`.

    instead: returns messages to at most so many others, each asked once.
    """

    messages: list[Message]
    wanted: int
    quorum: int = 0
    instead: Callable[[int], list[Message]] = lambda number: []


def quorum(settings: Settings, wanted: int) -> int:
    """Return how many good replies a round needs that wants `wanted`."""
    # A share of 0.7 of 10 is 7, though 0.7 * 10 is a little more than that in binary.
    return max(settings.quorum, ceil(round(settings.quorum_share * wanted, 9)))


class LeasedGrid(Grid):
    """A view of a Grid in which only `nodes` exist, in the order of their slots.

    Flower's own strategies sample from a Grid and wait on it without a limit; on this view their wait ends at `limit`
    (seconds on `clock`) with a RoundError.
    """

    def __init__(self, grid: Grid, nodes: Sequence[int], *, limit: float, clock: Clock | None = None) -> None:
        self._grid = grid
        self._clock = clock or Clock()
        self._nodes = list(nodes)
        self._limit = limit
        self._looks = 0

    def get_node_ids(self) -> Iterable[int]:
        """Return the leased nodes."""
        self._looks += 1
        # A simulated clock stands still while a strategy sleeps.
        if self._clock.now() > self._limit or (self._clock.simulated and self._looks > LOOKS):
            raise RoundError(
                f"the strategy wants more clients than the {len(self._nodes)} there are. "
                "Start more, or lower its min_train_nodes and min_available_nodes."
            )
        return list(self._nodes)

    def set_run(self, run: Any) -> None:
        """Pass on."""
        self._grid.set_run(run)

    @property
    def run(self) -> Any:
        """Pass on."""
        return self._grid.run

    def create_message(self, *arguments: Any, **named: Any) -> Message:
        """Pass on."""
        return self._grid.create_message(*arguments, **named)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Pass on."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pass on."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Pass on."""
        return self._grid.send_and_receive(messages, timeout=timeout)


def configuration(settings: Settings, round_number: int) -> ConfigRecord:
    """Return what every client of a round is told: the round and the settings."""
    return ConfigRecord({"server-round": round_number, "settings": json.dumps(settings.model_dump())})


def address(
    messages: Iterable[Message], leases: Leases, deadline: float, order: Callable[[int], list[str]] = lambda node: []
) -> list[Message]:
    """Give each message its client's own slot and partition in its config. The arrays are shared, not copied.

    Returned are the messages themselves, without those to a node without a lease: it is a spare. A message expires some
    time after the deadline, in seconds from now. order: of the columns of a node's table, where it is not its own.
    """
    slots, partitions, ttl = leases.slots, leases.partitions, deadline + MESSAGE_MARGIN_SECONDS
    told = []
    for message in messages:
        to = message.metadata
        slot = slots.get(to.dst_node_id)
        if slot is None:
            continue
        fields: dict[str, Any] = {"client": slot, "partition": slot, "partitions": partitions}
        if columns := order(to.dst_node_id):
            fields["columns"] = columns
        message.content = with_fields(message.content, fields)
        to.ttl = ttl
        told.append(message)
    return told
