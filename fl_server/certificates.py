"""The server's certificates: a CA of its own, server certificates from it, and their renewal; or somebody else's files.

All in one directory, the server's home: `ca.key`, `ca.crt`, `server.key`, `server.crt`. Where the CA's key is
elsewhere, certificates are used as they are and never renewed here.
"""

import datetime
import fcntl
import ipaddress
import os
import re
import ssl
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fl_common import private
from fl_common.errors import SecretError
from fl_common.keys import fingerprint

CA_DAYS = 3650
SERVER_DAYS = 90
RENEW_SHARE = 1 / 3  # of its lifetime: what is left when a server certificate is renewed
BACKDATE = datetime.timedelta(hours=1)  # for clients whose clock is a little behind
DNS_NAME = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


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
        """Return the server's private key and its certificate chain."""
        return private.read(self.key, "the server's key"), read_public(self.certificate)


def init(home: Path, names: Sequence[str], *, days: int = SERVER_DAYS, ca_days: int = CA_DAYS) -> Files:
    """Make a CA where there is none and a server certificate for `names`. Returns the files."""
    files = Files.inside(home)
    private.make_directory(home)
    with _one_at_a_time(home):
        if not files.ca.exists():
            _make_ca(files, ca_days)
        _issue(files, names, days=days)
    return files


def issue(files: Files, names: Sequence[str], *, days: int = SERVER_DAYS) -> Certificate:
    """Make a new server key and certificate from the CA. Raises SecretError where its key is not here."""
    if files.ca_key is None:
        raise SecretError(f"the CA of {files.certificate} is somebody else's. Ask them for a new certificate.")
    with _one_at_a_time(files.ca.parent):
        return _issue(files, names, days=days)


def _issue(files: Files, names: Sequence[str], *, days: int) -> Certificate:
    if files.ca_key is None:
        raise SecretError(f"the key of the CA {files.ca} is not here")
    ca = x509.load_pem_x509_certificate(read_public(files.ca))
    signer: Any = serialization.load_pem_private_key(private.read(files.ca_key, "the CA's key"), None)
    key = ec.generate_private_key(ec.SECP256R1())
    ends = min(_now() + datetime.timedelta(days=days), ca.not_valid_after_utc)
    builder = _builder(names[0] if names else "parterre server", key.public_key(), ca.subject, ends)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    identifier = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
    )
    certificate = builder.sign(signer, hashes.SHA256())
    private.write(files.key, _pem_of(key))
    private.write(files.certificate, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)
    return describe(files.certificate)


def renew_if_due(files: Files, names: Sequence[str] = (), *, now: datetime.datetime | None = None) -> str:
    """Renew the server certificate before it expires, or for names it lacks. Returns why, "" where it need not be.

    Raises SecretError where it has expired and the CA's key is not here.
    """
    certificate = describe(files.certificate)
    missing = [name for name in names if not certificate.covers([name])]
    left = certificate.left(now or _now())
    why = f"it was not good for {', '.join(missing)}" if missing else "" if left > RENEW_SHARE else "it was due"
    if not why:
        return ""
    if files.ca_key is None or not files.ca_key.exists():
        if left < 0:
            raise SecretError(f"the server's certificate {files.certificate} expired on {day(certificate.ends)}")
        return ""
    began = certificate.begins + BACKDATE
    days = max(1, round((certificate.ends - began) / datetime.timedelta(days=1)))
    issue(files, list(dict.fromkeys([*map(normal, names), *certificate.names])), days=days)
    return why


def check(files: Files, *, now: datetime.datetime | None = None) -> Certificate:
    """Return the server's certificate. Raises SecretError where a file is missing, unfit for its key, or expired."""
    key, chain = files.pair()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(files.certificate, files.key)
        context.load_verify_locations(cadata=read_public(files.ca).decode("ascii"))
    except (ssl.SSLError, UnicodeError) as error:
        reason = getattr(error, "reason", None) or error
        raise SecretError(f"{files.certificate}, {files.key} and {files.ca} do not go together: {reason}") from None
    del key, chain
    certificate = describe(files.certificate)
    if (now or _now()) > certificate.ends:
        raise SecretError(f"the server's certificate {files.certificate} expired on {day(certificate.ends)}")
    return certificate


def describe(path: Path) -> Certificate:
    """Return what a certificate file says of its first certificate. Raises SecretError."""
    content = read_public(path)
    try:
        found = x509.load_pem_x509_certificate(content)
    except ValueError:
        raise SecretError(f"{path} holds no certificate: expected PEM") from None
    return Certificate(
        found.subject.rfc4514_string(),
        tuple(_names_of(found)),
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


def normal(name: str) -> str:
    """Return a name or address in the one way that certificates are compared by. Raises SecretError."""
    bare = name.strip().strip("[]")
    with suppress(ValueError):  # what is no address is a name
        return str(ipaddress.ip_address(bare))
    try:
        text = bare.encode("idna").decode("ascii").lower()
    except UnicodeError:
        text = ""
    if not DNS_NAME.fullmatch(text):
        raise SecretError(f"expected a DNS name or an IP address; got {name!r}")
    return text


def day(moment: datetime.datetime) -> str:
    """Return a moment as a person reads it in a message."""
    return moment.strftime("%Y-%m-%d %H:%M UTC")


@contextmanager
def _one_at_a_time(home: Path) -> Iterator[None]:
    """Keep other processes from making certificates in a home: a key and its certificate are two files."""
    descriptor = os.open(home, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make_ca(files: Files, days: int) -> None:
    if files.ca_key is None:
        raise SecretError(f"there is no CA certificate at {files.ca}")
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"Parterre CA {x509.random_serial_number():x}"[:24])
    builder = _builder(name, key.public_key(), name, _now() + datetime.timedelta(days=days))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    usage = dict.fromkeys(
        ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
         "encipher_only", "decipher_only"), False,
    )  # fmt: skip
    builder = builder.add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True)
    private.write(files.ca_key, _pem_of(key))
    certificate = builder.sign(key, hashes.SHA256())
    private.write(files.ca, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)


def _builder(
    subject: str | x509.Name, key: ec.EllipticCurvePublicKey, issuer: x509.Name, ends: datetime.datetime
) -> x509.CertificateBuilder:
    name = _name(subject) if isinstance(subject, str) else subject
    builder = x509.CertificateBuilder(issuer, name, key, x509.random_serial_number(), _now() - BACKDATE, ends)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _general(name: str) -> x509.GeneralName:
    text = normal(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _names_of(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(each.value) for each in names]


def _pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
