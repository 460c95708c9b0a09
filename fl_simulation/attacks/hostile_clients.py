"""Hostile clients of a simulation: who they are, and an engine around any other that alters what they send.

Attacks on updates are here, whatever way the clients train; attacks on labels are around the data, in labels.py.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict

from fl_common.errors import SettingsError
from fl_common.messages.arrays import Arrays, decode, encode
from fl_common.settings.schema import Settings
from fl_simulation.attacks.updates import ATTACKS, SCALES, AttackerView, Moments
from fl_simulation.grid import Engine

WHO, NOISE = 0x40571, 0x40572  # what the seed draws: the hostile clients, and an attacker's noise

Announce = Callable[[Mapping[str, Any]], object]


def hostile_clients(settings: Settings, population: int) -> frozenset[int]:
    """Return the numbers of the hostile clients: the same for the same seed, share and population.

    Raises SettingsError where the share is of nobody.
    """
    if not settings.hostile:
        return frozenset()
    number = round(settings.hostile * population)
    if number < 1:
        raise SettingsError(
            f"hostile={settings.hostile:g} of {population} clients is none. Set it to at least {1 / population:g}"
        )
    rng = np.random.default_rng([settings.seed, WHO])
    return frozenset(int(client) for client in rng.choice(population, number, replace=False))


def alters_updates(settings: Settings) -> bool:
    """Say whether clients send what they did not train: then each client's own reply is needed."""
    return settings.hostile > 0 and settings.attack in ATTACKS


def with_hostile(engine: Engine, settings: Settings, population: int, announce: Announce) -> Engine:
    """Return the engine with the hostile clients that the settings ask for; itself where they ask for none.

    announce: is told once, before the first round, how many there are and what they do.
    """
    clients = hostile_clients(settings, population)
    if not clients and not settings.label_noise:
        return engine
    return HostileEngine(engine, settings, clients, population, announce)


class HostileEngine:
    """Answers as the engine inside does, but for the training replies of hostile clients."""

    def __init__(
        self, engine: Engine, settings: Settings, clients: frozenset[int], population: int, announce: Announce
    ) -> None:
        self.clients = clients
        self._engine = engine
        self._settings = settings
        self._population = population
        self._announce: Announce | None = announce
        self._scale = settings.attack_scale or SCALES.get(settings.attack, 0.0)

    def answer(self, messages: Sequence[Message]) -> Iterator[Message]:
        """Yield the replies, those of clients whose attack needs the others' models last."""
        self._tell()
        if not alters_updates(self._settings):
            yield from self._engine.answer(messages)
            return
        theirs = {message.metadata.message_id: message for message in messages if self._is_hostile(message)}
        waits = self._settings.attack == "alie" and theirs
        held, honest = [], Moments()
        for reply in self._engine.answer(messages):
            sent = theirs.get(reply.metadata.reply_to_message_id)
            if sent is None:
                if waits and reply.has_content() and reply.metadata.message_type == MessageType.TRAIN:
                    honest.add(_arrays(reply))
                yield reply
            elif reply.has_error():
                yield reply
            elif waits:
                held.append((sent, reply))
            else:
                yield self._altered(sent, reply, honest)
        for sent, reply in held:
            yield self._altered(sent, reply, honest)

    def _is_hostile(self, message: Message) -> bool:
        return message.metadata.message_type == MessageType.TRAIN and _told(message, "client") in self.clients

    def _altered(self, sent: Message, reply: Message, honest: Moments) -> Message:
        rng = np.random.default_rng([self._settings.seed, NOISE, _told(sent, "server-round"), _told(sent, "client")])
        attack = ATTACKS[self._settings.attack]
        arrays = encode(attack(_arrays(sent), _arrays(reply), AttackerView(self._scale, rng, honest)))
        content = {key: arrays if isinstance(each, ArrayRecord) else each for key, each in reply.content.items()}
        return Message(RecordDict(content), reply_to=sent)

    def _tell(self) -> None:
        if self._announce is not None:
            announce, self._announce = self._announce, None
            event: dict[str, Any] = {"event": "hostile", "hostile": len(self.clients), "clients": self._population}
            if self.clients:
                event |= {"attack": self._settings.attack, "scale": self._scale}
            announce(event | {"label_noise": self._settings.label_noise})


def _arrays(message: Message) -> Arrays:
    record = next(each for each in message.content.values() if isinstance(each, ArrayRecord))
    return {name: decode(array) for name, array in record.items()}


def _told(message: Message, key: str) -> int:
    """Return a number from a message's configuration; for a client without one, its place among the nodes."""
    found = [record[key] for record in message.content.values() if isinstance(record, ConfigRecord) and key in record]
    told = found[0] if found else message.metadata.dst_node_id - 1 if key == "client" else 0
    return int(told) if isinstance(told, int) else 0
