"""A simulated fleet's grid: each reply arrives when its client would have sent it, on a clock that costs no time.

Who answers by when is known before anyone trains, because speed depends on examples and bytes, not on results. So only
those are trained whose replies the server will take, all together; the rest is late, as on a real server.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from math import inf
from typing import Any

import numpy as np
from flwr.app import Message, MessageType

from fl_common.settings.schema import Settings
from fl_server.rounds.clients.leases import Numbered
from fl_server.rounds.clock import Clock
from fl_simulation.fleet.arrivals import InFlight, bytes_of, examples_of, first, in_order, round_of
from fl_simulation.fleet.fleet import HOUR, LOST_SECONDS, Clients, Fleet
from fl_simulation.grid import Engine, SimulatedGrid

KINDS = (MessageType.TRAIN, MessageType.EVALUATE)

Sizes = Callable[[Sequence[Message]], Sequence[int]]


class FleetClock(Clock):
    """The fleet's time: it stands still but for what is waited for."""

    simulated = True

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        """Return the seconds since the fleet's time began."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Let that time pass at once."""
        self._now += seconds

    def forward(self, moment: float) -> None:
        """Set the clock to a moment, unless that is past."""
        self._now = max(self._now, moment)


class FleetGrid(SimulatedGrid):
    """Hands over, in the order of their arrival, the replies that arrive before the deadline; `clock` follows them.

    sizes: returns how many examples the client of each message works on; without it, clients are asked before it is
    known how long they take, and their replies say how many examples there were.
    """

    def __init__(
        self, population: int, engine: Engine, fleet: Fleet, *, sizes: Sizes | None = None, run_id: int = 1
    ) -> None:
        super().__init__(population, engine, run_id=run_id)
        self.clock: FleetClock = FleetClock()
        self._fleet = fleet
        self._sizes = sizes
        self._deadline, self._enough = inf, 0
        self._sent: dict[str, InFlight] = {}
        self._pushes: Counter[tuple[int, int]] = Counter()
        self._busy: dict[int, float] = {}  # until when a node works on what it was sent last
        self._hour = -1
        self._present = Numbered()

    def expect(self, *, deadline: float, enough: int) -> None:
        """Be told when the server stops waiting, on `clock`, and after how many replies; 0: all."""
        self._deadline, self._enough = deadline, enough

    def discard(self, message_ids: Iterable[str]) -> dict[str, bool]:
        """Drop the answers to messages, making none, and return which have arrived by now, and whether of a client."""
        now, arrived = self.clock.now(), {}
        for identity in message_ids:
            sent = self._sent.get(identity)
            if sent is not None and sent.arrival <= now:
                arrived[identity] = not sent.lost
                del self._sent[identity]
            elif sent is not None:
                sent.forget()
        return arrived

    def get_node_ids(self) -> Sequence[int]:
        """Return the nodes that are there at this hour."""
        if self._fleet.always_there:
            return self._nodes
        hour = int(self.clock.now() // HOUR)
        if hour != self._hour:
            self._hour = hour
            self._present = Numbered((np.flatnonzero(self._fleet.present(len(self._nodes), hour)) + 1).tolist())
        return self._present

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Take messages, and plan when they are answered."""
        asked = list(messages)
        identities = super().push_messages(asked)
        self._waiting.clear()
        self._sent = {identity: sent for identity, sent in self._sent.items() if sent.expires > self.clock.now()}
        kinds: dict[str, list[Message]] = {}
        for message, identity in zip(asked, identities, strict=True):
            if identity:
                kinds.setdefault(message.metadata.message_type, []).append(message)
        for kind, taken in kinds.items():
            self._plan(kind, taken)
        return identities

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        """Yield the next replies in the order of their arrival; where none comes any more, let the deadline pass."""
        asked = [self._sent[identity] for identity in message_ids if identity in self._sent]
        self._time_the_unknown([sent for sent in asked if sent.arrival == inf])
        coming = first((sent for sent in asked if sent.arrival < sent.deadline), self._enough)
        if asked and not coming:
            self.clock.forward(max(sent.deadline for sent in asked))
        for sent in coming:
            del self._sent[sent.identity]
        if self._enough:  # whoever pulls again lacks some, and does not say how many
            self._enough = max(1, self._enough - sum(not sent.lost for sent in coming))
        return self._handed(coming)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages and yield their replies; after `timeout`, in the fleet's time, those that came."""
        self.expect(deadline=inf if timeout is None else self.clock.now() + timeout, enough=0)
        identities = self.push_messages(messages)
        yield from self.pull_messages(identities)
        yield from self.pull_messages(identities)  # none are left but late ones: this lets the time pass
        self.discard(identities)

    def notes(self) -> dict[str, Any]:
        """Return until when each node is at work, and the answers that are on their way."""
        now = self.clock.now()
        coming = [sent.notes() for sent in self._sent.values() if sent.arrival < inf and sent.expires > now]
        return {"busy": [[node, until] for node, until in self._busy.items() if until > now], "coming": coming}

    def restore(self, notes: Mapping[str, Any]) -> None:
        """Go on where such notes were taken."""
        self._busy = {int(node): float(until) for node, until in notes["busy"]}
        coming = [InFlight.of(each) for each in notes["coming"]]
        self._sent = {sent.identity: sent for sent in coming}
        self._numbers = count(1 + max((sent.number for sent in coming), default=0))

    def _plan(self, kind: str, messages: list[Message]) -> None:
        key = (KINDS.index(kind) if kind in KINDS else len(KINDS), round_of(messages[0]))
        self._pushes[key] += 1
        now = self.clock.now()
        dropouts = self._fleet.dropouts(_clients(messages), *key, self._pushes[key])
        sent = [
            InFlight(
                inf, int(message.metadata.message_id), message, self._deadline, dropout, now + message.metadata.ttl
            )
            for message, dropout in zip(messages, dropouts.tolist(), strict=True)
        ]
        if self._sizes is not None and kind in KINDS:
            trains = kind == MessageType.TRAIN
            down = np.array(_bytes(messages), float)
            self._time(sent, np.array(self._sizes(messages), float), down, down * trains, trains=trains)
        self._sent |= {each.identity: each for each in sent}

    def _time_the_unknown(self, unknown: list[InFlight]) -> None:
        """Ask the clients of whom it is not known how long they take. One that drops out is not asked."""
        if not unknown:
            return
        made = self._engine.answer([sent.message for sent in unknown if not sent.lost])
        replies = {reply.metadata.reply_to_message_id: reply for reply in made}
        for sent in unknown:
            sent.reply = replies.get(sent.identity)
            sizes = ([float(size)] for size in (examples_of(sent.reply), bytes_of(sent.message), bytes_of(sent.reply)))
            trains = sent.message.metadata.message_type == MessageType.TRAIN
            self._time([sent], *(np.array(size) for size in sizes), trains=trains)

    def _time(self, sent: list[InFlight], examples: Any, down: Any, up: Any, *, trains: bool) -> None:
        clients, now = _clients([each.message for each in sent]), self.clock.now()
        seconds = self._fleet.seconds(clients, examples, down, up, trains=trains)
        self._busy = {node: until for node, until in self._busy.items() if until > now}
        for each, duration in zip(sent, seconds.tolist(), strict=True):
            node = each.message.metadata.dst_node_id
            ends = self._busy.get(node, now) + (each.dropout if each.lost else 1) * duration
            each.arrival = ends + LOST_SECONDS if each.lost else ends
            self._busy[node] = ends

    def _handed(self, coming: list[InFlight]) -> Iterator[Message]:
        unmade = [sent.message for sent in coming if not sent.lost and sent.reply is None]
        for arrival, reply in in_order(coming, self._engine.answer(unmade) if unmade else ()):
            self.clock.forward(arrival)
            yield reply


def grid_of(settings: Settings, population: int, engine: Engine, sizes: Sizes | None = None) -> SimulatedGrid:
    """Return the grid of the fleet that the settings describe, or the plain one where they describe none."""
    fleet = Fleet.of(settings)
    return FleetGrid(population, engine, fleet, sizes=sizes) if fleet is not None else SimulatedGrid(population, engine)


def _clients(messages: Sequence[Message]) -> Clients:
    return np.array([message.metadata.dst_node_id - 1 for message in messages], np.int64)


def _bytes(messages: Sequence[Message]) -> list[int]:
    """Return the bytes of each message's arrays, which messages of a round share."""
    known: dict[int, int] = {}
    for message in messages:
        if (record := id(message.content.get("arrays"))) not in known:
            known[record] = bytes_of(message)
    return [known[id(message.content.get("arrays"))] for message in messages]
