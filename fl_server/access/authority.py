"""A certificate authority of a server's own: makes itself, and certificates of servers. It knows no files."""

import datetime
import ipaddress
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fl_common.errors import SecretError

BACKDATE = datetime.timedelta(hours=1)  # for clients whose clock is a little behind
DNS_NAME = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


def parts(pem: bytes) -> tuple[bytes, bytes]:
    """Return what a PEM file holds of private keys, and of certificates."""
    blocks = [(match[1], match[0] + b"\n") for match in BLOCK.finditer(pem)]
    keys = b"".join(block for kind, block in blocks if kind.endswith(b"PRIVATE KEY"))
    return keys, b"".join(block for kind, block in blocks if kind == b"CERTIFICATE")


def key_of(pem: bytes) -> Any:
    """Return the private key in a PEM file. Raises ValueError, also for one that has a password."""
    try:
        return serialization.load_pem_private_key(parts(pem)[0], None)
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(str(error)) from None


def go_together(key: bytes, chain: bytes) -> bool:
    """Say whether a private key is that of the first certificate of a chain. Raises ValueError where one is damaged."""
    return bool(key_of(key).public_key() == x509.load_pem_x509_certificate(chain).public_key())


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Say whether a certificate was signed with another one's key."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


@dataclass(frozen=True)
class Authority:
    """A CA: its certificate and its private key."""

    certificate: x509.Certificate
    key: Any

    @classmethod
    def new(cls, days: int) -> Self:
        """Make a CA for so many days."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"Parterre CA {x509.random_serial_number():x}"[:24])
        builder = _builder(name, key.public_key(), name, now() + datetime.timedelta(days=days))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        usage = dict.fromkeys(
            ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "encipher_only", "decipher_only"), False,
        )  # fmt: skip
        builder = builder.add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @property
    def public(self) -> bytes:
        """Its certificate, for clients."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def secret(self) -> bytes:
        """Its key, with the certificate after it."""
        return _pem_of(self.key) + self.public

    def sign(self, names: Sequence[str], days: int) -> bytes:
        """Return the key of a server with the certificate after it, for these names; it does not outlive the CA."""
        key = ec.generate_private_key(ec.SECP256R1())
        ends = min(now() + datetime.timedelta(days=days), self.certificate.not_valid_after_utc)
        first = _name(names[0] if names else "parterre server")
        builder = _builder(first, key.public_key(), self.certificate.subject, ends)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        identifier = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
        )
        certificate = builder.sign(self.key, hashes.SHA256())
        return _pem_of(key) + certificate.public_bytes(serialization.Encoding.PEM)


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


def names_of(certificate: x509.Certificate) -> list[str]:
    """Return the names and addresses that a certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return [str(each.value) for each in names]


def now() -> datetime.datetime:
    """Return the time that certificates are made at."""
    return datetime.datetime.now(datetime.UTC)


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, issuer: x509.Name, ends: datetime.datetime
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number(), now() - BACKDATE, ends)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _general(name: str) -> x509.GeneralName:
    text = normal(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
