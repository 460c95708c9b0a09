"""Who is asked, and what each is told: waiting for clients, leasing slots to them, addressing a round's messages."""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fl_common.errors import RoundError
from fl_common.settings import Settings
from fl_server.leases import Leases

POLL_SECONDS = 0.1
MESSAGE_MARGIN_SECONDS = 30.0


class LeasedGrid(Grid):
    """A view of a Grid in which only `nodes` exist, in the order of their slots.

    Flower's own strategies sample from a Grid and wait on it without a limit; on this view their wait ends at `limit`
    (seconds on the monotonic clock) with a RoundError.
    """

    def __init__(self, grid: Grid, nodes: Sequence[int], *, limit: float) -> None:
        self._grid = grid
        self._nodes = list(nodes)
        self._limit = limit

    def get_node_ids(self) -> Iterable[int]:
        """Return the leased nodes."""
        if time.monotonic() > self._limit:
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


def wait_for_clients(
    grid: Grid,
    leases: Leases,
    settings: Settings,
    *,
    announce: Callable[[Mapping[str, Any]], object],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Leases:
    """Return renewed leases once at least `min_clients` hold one. Raises RoundError after `wait_seconds`."""
    started, said = clock(), -1
    while True:
        leases = leases.renew(grid.get_node_ids())
        have = len(leases.slots)
        if have >= settings.min_clients:
            return leases
        waited = clock() - started
        if waited > settings.wait_seconds:
            raise RoundError(
                f"waited {settings.wait_seconds:g} s for {settings.min_clients} clients; {have} came. "
                "Start more with `fl client --server HOST:PORT`, or lower min_clients, or raise wait_seconds."
            )
        if have != said:
            announce({"event": "waiting", "have": have, "need": settings.min_clients, "seconds": round(waited, 3)})
            said = have
        sleep(POLL_SECONDS)


def configuration(settings: Settings, round_number: int) -> ConfigRecord:
    """Return what every client of a round is told: the round and the settings."""
    return ConfigRecord({"server-round": round_number, "settings": json.dumps(settings.model_dump())})


def address(messages: Iterable[Message], leases: Leases, settings: Settings) -> list[Message]:
    """Return the messages with each client's own slot and partition in its config. The arrays are shared, not copied.

    A message to a node without a lease is left out: it is a spare.
    """
    return [
        Message(
            content=_told(message.content, leases.slots[message.metadata.dst_node_id], leases.partitions),
            message_type=message.metadata.message_type,
            dst_node_id=message.metadata.dst_node_id,
            group_id=message.metadata.group_id,
            ttl=settings.deadline_seconds + MESSAGE_MARGIN_SECONDS,
        )
        for message in messages
        if message.metadata.dst_node_id in leases.slots
    ]


def _told(content: RecordDict, slot: int, partitions: int) -> RecordDict:
    own = {"client": slot, "partition": slot, "partitions": partitions}
    return RecordDict(
        {
            key: ConfigRecord({**record, **own}) if isinstance(record, ConfigRecord) else record
            for key, record in content.items()
        }
    )
