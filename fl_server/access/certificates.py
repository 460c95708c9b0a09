"""A server's certificates as files: which they are, what they say, and whether a client would take them.

In the home of a server that is its own CA, `ca.key` and `server.key` hold their certificates, too: a key and its
certificate are one file, and one rename. `ca.crt` and `server.crt` are copies that others may read.
"""

import datetime
import ssl
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from fl_common.errors import SecretError
from fl_common.trust import secret_files
from fl_common.trust.keys import fingerprint
from fl_server.access import authority
from fl_server.access.authority import normal

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
ROUNDS = 5  # of a handshake: more than any takes


@dataclass(frozen=True)
class Certificate:
    """What a person wants to know of a certificate."""

    subject: str
    names: tuple[str, ...]
    begins: datetime.datetime
    ends: datetime.datetime
    fingerprint: str
    serial: int

    def left(self, now: datetime.datetime) -> float:
        """Return the share of its lifetime that is left; negative after its end."""
        return (self.ends - now) / (self.ends - self.begins)

    def covers(self, names: Iterable[str]) -> bool:
        """Say whether it is good for all these names and addresses."""
        return set(map(normal, names)) <= set(self.names)


@dataclass(frozen=True)
class Files:
    """Where a server's certificates lie. `ca_key` is None where the CA is somebody else's."""

    ca: Path
    certificate: Path
    key: Path
    ca_key: Path | None = None

    @classmethod
    def inside(cls, home: Path) -> "Files":
        """Return the files of a server that is its own CA."""
        return cls(home / "ca.crt", home / "server.crt", home / "server.key", home / "ca.key")

    @property
    def fingerprint(self) -> str:
        """The CA's, for enrolment tokens."""
        return fingerprint(read_public(self.ca))

    def pair(self) -> tuple[bytes, bytes]:
        """Return the server's private key and its certificate chain. Raises SecretError where they are of two pairs."""
        secret = secret_files.read(self.key, "the server's key")
        key, chain = authority.parts(secret)
        if self.ca_key is None or not chain:  # somebody else's, or of an earlier release
            chain = read_public(self.certificate)
        try:
            together = authority.go_together(key, chain)
        except ValueError:
            describe(self.certificate)  # which says so where it is the damaged one
            raise SecretError(f"{self.key} is damaged: expected a private key as PEM, without a password") from None
        if not together:
            raise SecretError(f"{self.key} and {self.certificate} do not go together: it is another certificate's key")
        return key, chain


def check(files: Files, *, now: datetime.datetime | None = None) -> Certificate:
    """Return the server's certificate. Raises SecretError where clients that trust its CA would not take it."""
    chain = files.pair()[1]
    certificate = described(x509.load_pem_x509_certificate(chain))
    moment = now or authority.now()
    if moment > certificate.ends:
        raise SecretError(f"the server's certificate {files.certificate} expired on {day(certificate.ends)}{_RENEW}")
    if moment < certificate.begins:
        raise SecretError(
            f"the server's certificate {files.certificate} begins only on {day(certificate.begins)}, and the clock "
            f"here says {day(moment)}{_RENEW}"
        )
    try:
        _shake_hands(files, chain)
    except (OSError, ValueError) as error:  # of which ssl.SSLError is one
        reason = getattr(error, "verify_message", "") or getattr(error, "reason", None) or error
        raise SecretError(f"{files.certificate}, {files.key} and {files.ca} do not go together: {reason}") from None
    return certificate


_RENEW = ". Get another from its CA; where that is the server's own, run `fl certs init`."


def _shake_hands(files: Files, chain: bytes) -> None:
    """Have a client that trusts the CA meet this server, in memory. Raises ssl.SSLError where it turns away."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    whole = files.key if files.ca_key is not None and authority.parts(files.key.read_bytes())[1] else files.certificate
    server.load_cert_chain(whole, files.key, password="")
    client.check_hostname = False  # of the names, each client uses one
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # as gRPC: what is named as the CA need not be a root
    client.load_verify_locations(cadata=read_public(files.ca).decode("ascii"))
    coming, going = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(coming, going), server.wrap_bio(going, coming, server_side=True)]
    for _ in range(ROUNDS):
        for end in ends:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()


def describe(path: Path) -> Certificate:
    """Return what a certificate file says of its first certificate. Raises SecretError."""
    content = read_public(path)
    try:
        return described(x509.load_pem_x509_certificate(content))
    except ValueError:
        raise SecretError(f"{path} holds no certificate: expected PEM") from None


def described(found: x509.Certificate) -> Certificate:
    """Return what a certificate says. Raises ValueError where it is damaged."""
    return Certificate(
        found.subject.rfc4514_string(),
        tuple(authority.names_of(found)),
        found.not_valid_before_utc,
        found.not_valid_after_utc,
        found.fingerprint(hashes.SHA256()).hex(),
        found.serial_number,
    )


def read_public(path: Path) -> bytes:
    """Return the content of a file that is no secret. Raises SecretError."""
    try:
        return path.expanduser().read_bytes()
    except OSError as error:
        raise SecretError(f"cannot read {path}: {error.strerror}") from None


def day(moment: datetime.datetime) -> str:
    """Return a moment as a person reads it in a message."""
    return moment.strftime("%Y-%m-%d %H:%M UTC")
