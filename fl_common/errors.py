"""The error tree. Each message says what was expected, what came, and what to do next; commands print it and exit.

A message can hold values of a client's own: a path, a column, a cell of a table. It is written as a template with
`{fields}`, and what leaves the client has the fields' names in their place (fl_common.trust.disclosure).
"""

from collections.abc import Mapping
from typing import Any, Self


class Shown:
    """A value in an error's message that may leave a client, because it says nothing of the client's data."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __repr__(self) -> str:
        return repr(self._value)

    def __format__(self, form: str) -> str:
        return format(self._value, form)


class _Hidden:
    """Stands in for a value that stays at the client."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"<{self._name}>"

    def __format__(self, form: str) -> str:
        return repr(self)


def _filled(message: str, fields: Mapping[str, Any]) -> str:
    """Return the message with its fields; "" where one of them, an exception of a user's perhaps, has no text."""
    try:
        return message.format(**fields) if fields else message
    except Exception:  # noqa: BLE001
        return ""


MISTAKE = 2  # the exit code of what the person at the keyboard has to mend


class ParterreError(Exception):
    """The root: an error whose message is meant for the person at the keyboard. Commands exit with `exit_code`.

    fields: the values in the message. `disclosable` is the message without those that are not Shown; it is "" for a
    message without fields, which may hold anything.
    """

    exit_code = 1

    def __init__(self, message: str, /, **fields: Any) -> None:
        kept = {name: value if isinstance(value, Shown) else _Hidden(name) for name, value in fields.items()}
        self.disclosable = message.format(**kept) if fields else ""
        super().__init__(_filled(message, fields) or self.disclosable)

    @classmethod
    def shared(cls, message: str) -> Self:
        """Return an error whose whole message may leave a client."""
        error = cls(message)
        error.disclosable = message
        return error


class SettingsError(ParterreError):
    """A setting that is unknown, ill-typed or out of range."""

    exit_code = MISTAKE


class TaskError(ParterreError):
    """A task that is unknown, does not import, or whose model cannot be trained."""

    exit_code = MISTAKE


class DataError(ParterreError):
    """Data that are missing, unreadable, empty, or do not fit the model."""

    exit_code = MISTAKE


class StrategyError(ParterreError):
    """A strategy that is unknown, does not import, or refuses its arguments."""

    exit_code = MISTAKE


class RejectedReply(ParterreError):  # noqa: N818
    """A client's reply that must not touch the aggregate. `reason` is one of a small fixed set of words."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class TooFewReplies(ParterreError):  # noqa: N818
    """Too few good replies for a strategy's rule: the round is repeated with other clients, and nothing has changed."""


class RoundError(ParterreError):
    """A round that could not be completed: too few clients, or too few replies, after every repeat."""


class StoreError(ParterreError):
    """A run store that is missing, damaged, full or read-only."""


class HeldError(StoreError):
    """Something in the store that another process writes at the moment."""


class ExportError(ParterreError):
    """A model that a format cannot hold, or an export that does not answer as the model does."""


class NetworkError(ParterreError):
    """A server or port that cannot be used."""


class SecretError(ParterreError):
    """A key, certificate or credential that is missing, damaged, expired, or readable by others. Never quotes one."""


class AccessError(NetworkError):
    """The other side is not who it should be, or it refuses to let this one in. Trying again will not help."""


class Revoked(AccessError):  # noqa: N818
    """The server has shut this client's key out for good."""


class UnknownClient(AccessError):  # noqa: N818
    """The server does not know this client's key: it was never enrolled there, or not by this server."""
