"""The client's side of enrolment: know the server by its CA's fingerprint, then show the token once, over TLS.

Nothing that is secret is sent before the server's certificate was verified, its name included.
"""

import datetime
import logging
from typing import Any

import grpc

from fl_common.errors import AccessError, NetworkError, Revoked
from fl_common.network.tls_handshake import shown_certificate
from fl_common.trust import enrolment, keys
from fl_common.trust.keys import PrivateKey, fingerprint
from fl_common.trust.tokens import Token
from fl_common.trust.untrusted_text import clean

log = logging.getLogger(__name__)

CALL_SECONDS = 20.0


def fetch_authority(address: str, wanted: str) -> bytes:
    """Return the CA certificate (PEM) of the server at `address`, whose fingerprint is `wanted`.

    The connection it comes by is not verified, and need not be: what does not have the fingerprint is not taken.
    Raises NetworkError where nobody answers, AccessError where it is another server.
    """
    leaf = shown_certificate(address)
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


def is_no_fleet(error: grpc.RpcError) -> bool:
    """Say whether a call was answered by something else than a Fleet API: by another port of the server, say."""
    return error.code() is grpc.StatusCode.UNIMPLEMENTED or error.details() == enrolment.FLOWERS_REFUSAL


def _call(channel: grpc.Channel, method: str, message: dict[str, str], address: str) -> dict[str, Any]:
    try:
        call: Any = channel.unary_unary(enrolment.path(method))
        answer = call(enrolment.encode(message), timeout=CALL_SECONDS)
    except grpc.RpcError as error:
        refused = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.RESOURCE_EXHAUSTED)
        if error.code() in refused:
            why = clean(error.details())
            if why.endswith(enrolment.SHUT_OUT):
                raise Revoked(f"the server at {address} refused to enrol this client: {why}") from None
            raise AccessError(f"the server at {address} refused to enrol this client: {why}") from None
        if is_no_fleet(error):
            raise AccessError(
                f"the server at {address} knows no enrolment. Is it the Fleet address of an `fl server` (port 9092 by "
                "default), not its Control or ServerAppIo address?"
            ) from None
        raise NetworkError(f"the server at {address} does not answer: {clean(error.details())}") from None
    try:
        return enrolment.decode(answer)
    except ValueError:
        raise AccessError(f"the server at {address} gives no answer of `fl server`") from None
