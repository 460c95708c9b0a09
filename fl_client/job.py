"""A server's message, parsed: what to do for which round, with which settings. The client's door."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict

from fl_common.errors import RejectedReply, SettingsError, Shown, TaskError
from fl_common.messages import packed_arrays
from fl_common.settings.schema import Settings, parse

PATHS = ("data_dir", "store", "out")  # settings that name places on the machine that reads them


@dataclass(frozen=True)
class Home:
    """What was said on a client's own command line: it wins over a server's message. `resident` runs own code only."""

    task: str = ""
    data: str = ""
    label: str = ""
    ignore: tuple[str, ...] = ()
    data_dir: str = ""
    resident: bool = False

    @classmethod
    def of(cls, node_config: Mapping[str, Any]) -> "Home":
        """Read Flower's node config."""
        words = {key: str(node_config[key]) for key in ("task", "data", "label", "data_dir") if node_config.get(key)}
        ignore = tuple(map(str, json.loads(str(node_config.get("ignore", "[]")))))
        return cls(**words, ignore=ignore, resident=bool(node_config.get("resident", False)))

    def paths(self) -> dict[str, str]:
        """Return the settings that name a place on this machine: a resident client takes none from a message."""
        return {name: getattr(self, name, "") for name in PATHS} if self.resident else {}


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
    columns: tuple[str, ...]  # of a table of the client's own, in the order of the run; () is the file's
    packed: bool  # small arrays came together, and are to be answered together

    @classmethod
    def of(cls, message: Message, context: Context) -> "Job":
        """Read a message of a Parterre server. Raises TaskError where something is missing or of another type."""
        # Not through content.array_records: that view and the content refer to each other, and stay in memory.
        content = _unpacked(message.content)
        arrays, config = (content.get(key) for key in ("arrays", "config"))
        if not (isinstance(arrays, ArrayRecord) and isinstance(config, ConfigRecord)):
            raise TaskError.shared(
                'a message needs an ArrayRecord "arrays" and a ConfigRecord "config"; this one lacks them.'
            )
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
            columns=_texts(config, "columns"),
            packed=packed_arrays.is_packed(message.content),
        )

    def answer(self, content: RecordDict) -> RecordDict:
        """Return a reply's content in the form in which the message came."""
        return packed_arrays.pack(content) if self.packed else content


@lru_cache(maxsize=8)  # parsing is pure, and the text stays the same for a whole run
def settings_of(text: str) -> Settings:
    """Return the settings that a server sent as JSON. Raises SettingsError or TaskError."""
    try:
        values = json.loads(text)
    except ValueError as error:
        raise TaskError(
            '"settings" must be JSON; {error}. Use the same version on both sides.', error=Shown(error)
        ) from None
    if not isinstance(values, dict):
        raise TaskError('"settings" must be a JSON object; got {text!r}.', text=Shown(text[:80]))
    try:
        return parse(values, source="the server's message")
    except SettingsError as error:
        raise SettingsError.shared(str(error)) from None


def _unpacked(content: RecordDict) -> RecordDict:
    try:
        return packed_arrays.unpack(content)
    except RejectedReply as error:
        raise TaskError("the server's message cannot be read: {detail}", detail=Shown(error.detail)) from error


def _text(config: ConfigRecord, key: str) -> str:
    value = config.get(key)
    if not isinstance(value, str):
        raise _unlike(key, "text", value)
    return value


def texts(message: Message, key: str) -> tuple[str, ...]:
    """Return a list of texts in a message's config. Raises TaskError where it is none."""
    config = message.content.get("config")
    return _texts(config, key) if isinstance(config, ConfigRecord) else ()


def _texts(config: ConfigRecord, key: str) -> tuple[str, ...]:
    values = config.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise _unlike(key, "a list of texts", values)
    return tuple(map(str, values))


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
    return TaskError(
        'the message\'s "{key}" must be {expected}; got {value!r}. Use the same version on both sides.',
        key=Shown(key),
        expected=Shown(expected),
        value=Shown(value),
    )
