"""The client's side of enrolment: know the server by its CA's fingerprint, then show the token once, over TLS.

Nothing that is secret is sent before the server's certificate was verified, its name included.
"""

import datetime
import logging
import socket
import ssl
from typing import Any

import grpc

from fl_common import enrolment, keys
from fl_common.errors import AccessError, NetworkError
from fl_common.keys import PrivateKey, fingerprint
from fl_common.tokens import Token

log = logging.getLogger(__name__)

CALL_SECONDS = 20.0
CONNECT_SECONDS = 10.0


def fetch_authority(address: str, wanted: str) -> bytes:
    """Return the CA certificate (PEM) of the server at `address`, whose fingerprint is `wanted`.

    The connection it comes by is not verified, and need not be: what does not have the fingerprint is not taken.
    Raises NetworkError where nobody answers, AccessError where it is another server.
    """
    leaf = _shown_certificate(address)
    with grpc.secure_channel(address, grpc.ssl_channel_credentials(leaf)) as channel:
        answer = _call(channel, enrolment.AUTHORITY, {}, address)
    certificate = str(answer.get("certificate", "")).encode()
    if fingerprint(certificate) != wanted:
        raise AccessError(
            f"the server at {address} is not the one that the enrolment token is for: its CA has another fingerprint. "
            "Is the address right? If the server's CA was made anew, ask for a new token."
        )
    return certificate


def enrol(address: str, token: Token, key: PrivateKey, authority: bytes) -> str:
    """Show the token and prove the key, over verified TLS. Returns the client's id. Raises as `fetch_authority`."""
    message = {"token": token.text} | signed(key, token.identity)
    with grpc.secure_channel(address, grpc.ssl_channel_credentials(authority)) as channel:
        return str(_call(channel, enrolment.ENROL, message, address).get("client", ""))


def signed(key: PrivateKey, purpose: str) -> dict[str, str]:
    """Return the fields of a message that prove the possession of a key now, for one purpose."""
    pem = keys.public_pem(key.public_key())
    time = datetime.datetime.now(datetime.UTC).isoformat()
    signature = keys.sign(key, enrolment.proof(purpose, pem, time))
    return {"public_key": pem.decode("ascii"), "time": time, "signature": signature.hex()}


def diagnose(address: str, authority: bytes | None) -> str:
    """Say why a TLS handshake with a server fails, "" where it does not or where nobody answers.

    `authority` is None for a plaintext connection that failed. gRPC tells only that it failed.
    """
    context = ssl.create_default_context(cadata=authority.decode("ascii")) if authority else _unverified()
    try:
        _handshake(address, context)
    except ssl.SSLCertVerificationError as error:
        return f"the certificate of the server at {address} cannot be verified: {error.verify_message}"
    except ssl.SSLError as error:
        return f"the server at {address} speaks no TLS ({error.reason})" if authority else ""
    except OSError:
        return ""
    return "" if authority else f"the server at {address} speaks TLS; this client was told not to (--insecure)"


def _shown_certificate(address: str) -> bytes:
    try:
        der: bytes = _handshake(address, _unverified())
    except ssl.SSLError as error:
        raise AccessError(f"the server at {address} speaks no TLS: {error.reason}") from None
    except OSError as error:
        raise NetworkError(f"no server answers at {address}: {error.strerror or error}") from None
    return ssl.DER_cert_to_PEM_cert(der).encode()


def _handshake(address: str, context: ssl.SSLContext) -> bytes:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=host) as secure,
    ):
        shown: bytes | None = secure.getpeercert(binary_form=True)
        return shown or b""


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _call(channel: grpc.Channel, method: str, message: dict[str, str], address: str) -> dict[str, Any]:
    try:
        call: Any = channel.unary_unary(enrolment.path(method))
        answer = call(enrolment.encode(message), timeout=CALL_SECONDS)
    except grpc.RpcError as error:
        refused = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.RESOURCE_EXHAUSTED)
        if error.code() in refused:
            raise AccessError(f"the server at {address} refused to enrol this client: {error.details()}") from None
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            raise AccessError(f"the server at {address} knows no enrolment: it is no `fl server`") from None
        raise NetworkError(f"the server at {address} does not answer: {error.details()}") from None
    try:
        return enrolment.decode(answer)
    except ValueError:
        raise AccessError(f"the server at {address} gives no answer of `fl server`") from None
