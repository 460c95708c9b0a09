"""The enrolment service as both sides know it: a gRPC service of ours on the port of Flower's Fleet API.

Its messages are small JSON objects. `Authority` says which CA the server's certificate is of (a client compares its
fingerprint with its token's); `Enrol` shows a token and proves the possession of a key; `Describe` says, just before a
client joins, what its data are called; `Stay` is an open call that ends when the connection does.
"""

import json
from collections.abc import Mapping
from typing import Any

SERVICE = "parterre.Enrolment"
AUTHORITY, ENROL, DESCRIBE, STAY = "Authority", "Enrol", "Describe", "Stay"
MOST_BYTES = 16_384  # of a message; a real one has about 1,000
MOST_SCHEMA_BYTES = 2_000_000  # of one that says what a client's data are called

SESSION_HEADER = "parterre-session"  # which process speaks under a key: random, made at its start
HEARTBEAT_HEADER = "parterre-heartbeat-seconds"  # how often the server wants to hear from a node
POLL_HEADER = "parterre-poll-seconds"  # how far apart the server wants an idle node's polls to be

UNKNOWN = "this server does not know this client's key"
REVOKED = "this client was revoked"
SHUT_OUT = "its key is not let in again"
REPLACED = "another process has joined under this client's key"
FLOWERS_REFUSAL = "Authentication failed."  # what ServerAppIo, which is for ServerApps only, says to everybody else


def path(method: str) -> str:
    """Return a method's full gRPC name."""
    return f"/{SERVICE}/{method}"


def encode(message: Mapping[str, Any]) -> bytes:
    """Return a message as bytes."""
    return json.dumps(message, separators=(",", ":")).encode()


def decode(content: bytes, most: int = MOST_BYTES) -> dict[str, str]:
    """Return the texts of a message. Raises ValueError where it is not a JSON object of texts of `most` bytes."""
    if len(content) > most:
        raise ValueError(f"expected at most {most} bytes")
    message = json.loads(content)
    if not isinstance(message, dict) or not all(isinstance(value, str) for value in message.values()):
        raise ValueError("expected an object of texts")
    return message


def proof(token: str, public_key: bytes, time: str) -> bytes:
    """Return what a client signs to prove that it holds the key that it asks to have enrolled."""
    return b"\n".join([b"parterre enrolment 1", token.encode(), time.encode(), public_key])
