"""What a registry holds: clients that were let in, and tokens as they stand."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from fl_common.errors import SecretError

Labels = Mapping[str, str]
SLOT = "slot"  # the label of a client that is to have a slot of its own


@dataclass(frozen=True)
class Client:
    """A client that was let in: `token` is the id of the token it came by, "" where its key was registered by hand.

    killed: for what memory the process of this client was killed that was last, as the next one told at `killed_at`.
    """

    identity: str
    public_key: bytes
    node: int
    labels: Labels
    token: str
    since: float
    seen: float | None
    revoked: float | None
    killed: str = ""
    killed_at: float | None = None


@dataclass(frozen=True)
class TokenRecord:
    """A token as it stands. Times are seconds since 1970."""

    identity: str
    labels: Labels
    uses: int
    used: int
    made: float
    expires: float
    revoked: float | None

    def state(self, now: float) -> str:
        """Say whether it still admits anybody: "good", "used up", "expired" or "revoked"."""
        if self.revoked is not None:
            return "revoked"
        if now >= self.expires:
            return "expired"
        return "used up" if self.used >= self.uses else "good"


def client_of(row: sqlite3.Row) -> Client:
    """Return the client of a row."""
    return Client(
        row["id"], row["public_key"], int(row["node"] or 0), json.loads(row["labels"]), row["token"], row["since"],
        row["seen"], row["revoked"], row["killed"], row["killed_at"],
    )  # fmt: skip


def token_of(row: sqlite3.Row) -> TokenRecord:
    """Return the token of a row."""
    return TokenRecord(
        row["id"], json.loads(row["labels"]), row["uses"], row["used"], row["made"], row["expires"], row["revoked"]
    )


def parse_labels(assignments: list[str] | None) -> dict[str, str]:
    """Return {"site": "berlin"} of ["site=berlin"]. Raises SecretError where one is no KEY=VALUE."""
    found: dict[str, str] = {}
    for each in assignments or []:
        key, equals, value = each.partition("=")
        if not (equals and key.strip() and value.strip()):
            raise SecretError(f"--label takes KEY=VALUE, such as site=berlin; got {each!r}")
        found[key.strip()] = value.strip()
    return found
