"""Node keys, as Flower has them: ECDSA over P-384, PEM on the wire. A client's id is its public key's fingerprint."""

import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import load_pem_x509_certificates

from fl_common.errors import SecretError

ID_CHARACTERS = 24  # 96 bits of SHA-256: nobody finds a second key for an id, and a person can compare it
PrivateKey = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey


def generate() -> PrivateKey:
    """Return a new private key."""
    return ec.generate_private_key(ec.SECP384R1())


def private_pem(key: PrivateKey) -> bytes:
    """Return a private key as unencrypted PKCS8."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_private(pem: bytes, where: str) -> PrivateKey:
    """Return the private key of a PEM. Raises SecretError, which names the file and not what is in it."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        raise SecretError(f"the key in {where} is damaged: expected a P-384 private key as PEM") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise SecretError(f"the key in {where} is of another kind: expected ECDSA over P-384")
    return key


def public_pem(key: PublicKey) -> bytes:
    """Return a public key as the one PEM text that stands for it."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def read_public(pem: bytes) -> PublicKey:
    """Return the public key of a PEM: of a bare public key, or of OpenSSH's text. Raises SecretError."""
    load = serialization.load_ssh_public_key if pem.startswith(b"ecdsa-") else serialization.load_pem_public_key
    try:
        key = load(pem)
    except (ValueError, TypeError, UnicodeError):
        raise SecretError("expected an ECDSA P-384 public key as PEM or in OpenSSH's form; it is neither") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise SecretError("expected an ECDSA public key over P-384; the key is of another kind")
    return key


def client_id(pem: bytes) -> str:
    """Return the id of the client that holds a public key, however its PEM is written. Raises SecretError."""
    der = read_public(pem).public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()[:ID_CHARACTERS]


def sign(key: PrivateKey, content: bytes) -> bytes:
    """Return the signature of `content`."""
    return key.sign(content, ec.ECDSA(hashes.SHA256()))


def is_signed(pem: bytes, content: bytes, signature: bytes) -> bool:
    """Say whether the holder of a public key signed `content`."""
    try:
        read_public(pem).verify(signature, content, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, SecretError):
        return False
    return True


def fingerprint(certificates: bytes) -> str:
    """Return the SHA-256, in hex, of the certificate(s) of a PEM file, one after another in DER. Raises SecretError."""
    try:
        found = load_pem_x509_certificates(certificates)
    except ValueError:
        raise SecretError("expected one certificate or more as PEM; it holds none") from None
    whole = b"".join(each.public_bytes(serialization.Encoding.DER) for each in found)
    return hashlib.sha256(whole).hexdigest()
