"""The enrolment token: what an operator hands to a client so that each can know the other.

Its text is `fl1.ID.SECRET.FINGERPRINT`: an id that may be shown, 256 random bits that may not, and the SHA-256 of the
server's CA certificate, by which a client knows the server before it shows the secret.
"""

import base64
import binascii
import hashlib
import re
import secrets
from dataclasses import dataclass, field

from fl_common.errors import SecretError

VERSION = "fl1"
SECRET_BYTES = 32
FINGERPRINT_BYTES = 32
IDENTITY = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True)
class Token:
    """`identity` names it in lists; `secret` is never printed, not even by repr; `fingerprint` is the CA's, in hex."""

    identity: str
    secret: bytes = field(repr=False)
    fingerprint: str

    @classmethod
    def new(cls, fingerprint: str) -> "Token":
        """Return a fresh token for the server whose CA certificate has this fingerprint."""
        return cls(secrets.token_hex(6), secrets.token_bytes(SECRET_BYTES), fingerprint)

    @classmethod
    def parse(cls, text: str) -> "Token":
        """Return the token that a text spells. Raises SecretError, which does not quote it."""
        try:
            version, identity, secret, fingerprint = text.strip().split(".")
            token = cls(identity, _decoded(secret), _decoded(fingerprint).hex())
        except (ValueError, binascii.Error):
            raise SecretError(_MALFORMED) from None
        whole = (len(token.secret), len(token.fingerprint)) == (SECRET_BYTES, 2 * FINGERPRINT_BYTES)
        if version != VERSION or not IDENTITY.fullmatch(identity) or not whole:
            raise SecretError(_MALFORMED)
        return token

    @property
    def text(self) -> str:
        """The token as it is handed over."""
        return f"{VERSION}.{self.identity}.{_encoded(self.secret)}.{_encoded(bytes.fromhex(self.fingerprint))}"

    @property
    def digest(self) -> bytes:
        """What a server keeps. 256 random bits cannot be guessed from their SHA-256, so no slow hash is needed."""
        return hashlib.sha256(self.secret).digest()


_MALFORMED = (
    "the enrolment token is damaged: expected fl1.ID.SECRET.FINGERPRINT as `fl enroll token` printed it. "
    "Copy it whole, or make a new one."
)


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
