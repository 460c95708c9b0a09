"""The error tree. Each message says what was expected, what came, and what to do next; commands print it and exit."""


class ParterreError(Exception):
    """The root: an error whose message is meant for the person at the keyboard. Commands exit with `exit_code`."""

    exit_code = 1


class SettingsError(ParterreError):
    """A setting that is unknown, ill-typed or out of range."""

    exit_code = 2


class TaskError(ParterreError):
    """A task that is unknown, does not import, or whose model cannot be trained."""

    exit_code = 2


class DataError(ParterreError):
    """Data that are missing, unreadable, empty, or do not fit the model."""

    exit_code = 2


class StrategyError(ParterreError):
    """A strategy that is unknown, does not import, or refuses its arguments."""

    exit_code = 2


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


class NetworkError(ParterreError):
    """A server or port that cannot be used."""


class SecretError(ParterreError):
    """A key, certificate or credential that is missing, damaged, expired, or readable by others. Never quotes one."""


class AccessError(NetworkError):
    """The other side is not who it should be, or it refuses to let this one in. Trying again will not help."""


class UnknownClient(AccessError):  # noqa: N818
    """The server does not know this client's key: it was never enrolled there, or not by this server."""
