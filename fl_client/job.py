"""A server's message, parsed: what to do for which round, with which settings. The client's door."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict

from fl_common import wire
from fl_common.errors import RejectedReply, TaskError
from fl_common.settings import Settings, parse


@dataclass(frozen=True)
class Home:
    """What was said on a client's own command line: it wins over a server's message. `resident` runs own code only."""

    task: str = ""
    data: str = ""
    label: str = ""
    resident: bool = False

    @classmethod
    def of(cls, node_config: Mapping[str, Any]) -> "Home":
        """Read Flower's node config."""
        words = {key: str(node_config[key]) for key in ("task", "data", "label") if node_config.get(key)}
        return cls(**words, resident=bool(node_config.get("resident", False)))


@dataclass(frozen=True)
class Job:
    """One client's part in a round."""

    arrays: ArrayRecord
    settings: Settings
    home: Home
    round: int
    client: int
    partition: int
    partitions: int
    mu: float
    packed: bool  # small arrays came together, and are to be answered together

    @classmethod
    def of(cls, message: Message, context: Context) -> "Job":
        """Read a message of a Parterre server. Raises TaskError where something is missing or of another type."""
        # Not through content.array_records: that view and the content refer to each other, and stay in memory.
        content = _unpacked(message.content)
        arrays, config = (content.get(key) for key in ("arrays", "config"))
        if not (isinstance(arrays, ArrayRecord) and isinstance(config, ConfigRecord)):
            raise TaskError('a message needs an ArrayRecord "arrays" and a ConfigRecord "config"; this one lacks them.')
        settings = settings_of(_text(config, "settings"))
        return cls(
            arrays=arrays,
            settings=settings,
            home=Home.of(context.node_config),
            round=_integer(config, "server-round"),
            client=_integer(config, "client"),
            partition=_integer(config, "partition"),
            partitions=_integer(config, "partitions"),
            mu=_number(config, "proximal-mu", settings.mu),
            packed=wire.is_packed(message.content),
        )

    def answer(self, content: RecordDict) -> RecordDict:
        """Return a reply's content in the form in which the message came."""
        return wire.pack(content) if self.packed else content


@lru_cache(maxsize=8)  # parsing is pure, and the text stays the same for a whole run
def settings_of(text: str) -> Settings:
    """Return the settings that a server sent as JSON. Raises SettingsError or TaskError."""
    try:
        values = json.loads(text)
    except ValueError as error:
        raise TaskError(f'"settings" must be JSON; {error}. Use the same version on both sides.') from None
    if not isinstance(values, dict):
        raise TaskError(f'"settings" must be a JSON object; got {text[:80]!r}.')
    return parse(values, source="the server's message")


def _unpacked(content: RecordDict) -> RecordDict:
    try:
        return wire.unpack(content)
    except RejectedReply as error:
        raise TaskError(f"the server's message cannot be read: {error.detail}") from error


def _text(config: ConfigRecord, key: str) -> str:
    value = config.get(key)
    if not isinstance(value, str):
        raise _unlike(key, "text", value)
    return value


def _integer(config: ConfigRecord, key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _unlike(key, "an integer from 0 up", value)
    return value


def _number(config: ConfigRecord, key: str, default: float) -> float:
    value = config.get(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < float("inf"):
        raise _unlike(key, "a number from 0 up", value)
    return float(value)


def _unlike(key: str, expected: str, value: Any) -> TaskError:
    return TaskError(f'the message\'s "{key}" must be {expected}; got {value!r}. Use the same version on both sides.')
