"""The server's side of enrolment: shows whose certificates it uses, takes tokens, and feels when a connection ends.

An interceptor answers these calls before Flower's own see them, so that none of Flower's had to be weakened.
"""

import datetime
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

from fl_common.errors import AccessError, ParterreError, SecretError, StoreError
from fl_common.trust import enrolment, keys
from fl_common.trust.tokens import Token
from fl_common.trust.untrusted_text import clean
from fl_server.access.client_registry import Registry
from fl_server.access.data_schemas import Schemas
from fl_server.superlink.fleet.liveness import Sessions
from fl_server.superlink.fleet.registry_sync import shut_out

log = logging.getLogger(__name__)

CLOCK_TOLERANCE = 310.0  # seconds that a client's clock may differ: Flower's own tolerance
MOST_WORDS = 200  # characters of how a client ended
MOST_FAILURES, PER_SECONDS = 20, 60.0
TOO_MANY = "too many failed enrolments from this address; wait a minute"


class Failures:
    """Counts failed attempts by address: after MOST_FAILURES in PER_SECONDS, further ones are not looked at.

    Who shows a token that was made here is looked at whatever the count: behind one address may be many, and a stranger
    among them must not keep the others out. Nobody can guess a token.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._by_address: dict[str, list[float]] = {}

    def too_many(self, address: str) -> bool:
        """Say whether an address has failed too often lately."""
        with self._lock:
            return len(self._recent(address)) >= MOST_FAILURES

    def add(self, address: str) -> None:
        """Count a failure."""
        with self._lock:
            self._by_address[address] = [*self._recent(address), self._clock()][-MOST_FAILURES:]
            for other in [each for each in self._by_address if not self._recent(each)]:
                del self._by_address[other]

    def _recent(self, address: str) -> list[float]:
        since = self._clock() - PER_SECONDS
        return [moment for moment in self._by_address.get(address, []) if moment > since]


@dataclass
class Enrolments:
    """What answers enrolment calls. Without a registry (`--insecure`) nobody is enrolled, for all may come.

    `is_node` says whether a public key is a node of Flower's; `lost` is called with the key of one whose connection
    has ended without a goodbye. `steady` is the time where the machine's clock was not set since the start.
    """

    authority: bytes
    registry: Registry | None
    sessions: Sessions
    failures: Failures
    is_node: Callable[[bytes], bool]
    lost: Callable[[bytes], None]
    schemas: Schemas
    steady: Callable[[], float]

    def show_authority(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Answer with the CA's certificate: no secret, and nobody believes it unverified."""
        return enrolment.encode({"certificate": self.authority.decode("ascii")})

    def enrol(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Enrol the holder of a key who shows a good token."""
        address = _host(context.peer())
        if self.failures.too_many(address) and not self._shows_a_token(request):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, TOO_MANY)
        try:
            client = self._admitted(enrolment.decode(request))
        except (ValueError, KeyError, TypeError):
            self._refuse(context, address, "malformed request")
        except ParterreError as error:
            self._refuse(context, address, str(error))
        log.info("enrolled client %s by token %s", client.identity, client.token)
        return enrolment.encode({"client": client.identity})

    def describe(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Take what the data of a client are called, which is about to join, and how the one before it ended."""
        try:
            message = enrolment.decode(request, enrolment.MOST_SCHEMA_BYTES)
            client, key = self._proven(message, "schema"), message["public_key"].encode()
        except (ValueError, KeyError, TypeError, ParterreError):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "not proven")
        if self.registry is not None and (why := shut_out(self.registry, client)):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, why)
        if not self.is_node(key) and (self.registry is None or self.registry.client(client) is None):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, enrolment.UNKNOWN)
        if self.registry is not None and (killed := message.get("killed")):
            self._note_killed(self.registry, client, killed)
        try:
            if "schema" in message or "killed" not in message:
                self.schemas.expect(client, message["schema"])
        except (ValueError, KeyError, TypeError, RecursionError):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "expected names and kinds, fewer and shorter ones")
        return enrolment.encode({})

    def _note_killed(self, registry: Registry, client: str, told: str) -> None:
        why = clean(told, most=MOST_WORDS)
        try:
            registry.note_killed(client, why)
        except StoreError as error:
            log.warning("client %s was killed (%s), which cannot be noted: %s", client, why, error)

    def stay(
        self, request: bytes, context: grpc.ServicerContext, send_response_callback: Callable[[Any], None]
    ) -> None:
        """Keep a call open for as long as the client's connection lives; it takes no thread.

        No response is ever sent: a client that reads none would not be told that the call has ended.
        """
        try:
            message = enrolment.decode(request)
            client, key, session = self._proven(message, "stay"), message["public_key"].encode(), message["session"]
        except (ValueError, KeyError, TypeError, ParterreError):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "not proven")
        if not self.is_node(key):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, enrolment.UNKNOWN)
        if not self.sessions.is_current(client, session):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, enrolment.REPLACED)

        def close(code: grpc.StatusCode, why: str) -> None:
            context.set_code(code)
            context.set_details(why)
            send_response_callback(None)  # ends the call: cancelling it here would not tell the client

        self.sessions.opened(client, close)
        if not context.add_callback(lambda: self.sessions.closed(client, close, lambda: self.lost(key))):
            self.sessions.closed(client, close, lambda: self.lost(key))  # it has ended already

    def _shows_a_token(self, request: bytes) -> bool:
        try:
            token = Token.parse(enrolment.decode(request)["token"])
        except (ValueError, KeyError, SecretError):
            return False
        return self.registry is not None and self.registry.knows(token)

    def _admitted(self, message: dict[str, str]) -> Any:
        token = Token.parse(message["token"])
        pem = message["public_key"].encode("ascii")
        self._proven(message, token.identity)
        if keys.public_pem(keys.read_public(pem)) != pem:
            raise SecretError("the public key is not in its usual form")
        if self.registry is None:
            raise AccessError("this server enrols nobody: it was started with --insecure")
        return self.registry.admit(token, pem)

    def _proven(self, message: dict[str, str], purpose: str) -> str:
        """Return the id of the client that signed a message. Raises AccessError."""
        pem = message["public_key"].encode("ascii")
        moment = datetime.datetime.fromisoformat(message["time"]).timestamp()
        if min(abs(clock() - moment) for clock in (time.time, self.steady)) > CLOCK_TOLERANCE:
            raise AccessError("the clocks of client and server differ by more than five minutes. Set them right.")
        signed = enrolment.proof(purpose, pem, message["time"])
        if not keys.is_signed(pem, signed, bytes.fromhex(message["signature"])):
            raise AccessError("the signature does not prove the possession of the key")
        return keys.client_id(pem)

    def _refuse(self, context: grpc.ServicerContext, address: str, why: str) -> None:
        self.failures.add(address)
        log.warning("an enrolment from %s was refused: %s", address, why)
        context.abort(grpc.StatusCode.PERMISSION_DENIED, why)


class EnrolmentInterceptor(grpc.ServerInterceptor):
    """Answers enrolment calls; everything else goes on to Flower's interceptors and services as it came."""

    def __init__(self, desk: Enrolments) -> None:
        def stay(request: bytes, context: grpc.ServicerContext, send_response_callback: Callable[[Any], None]) -> None:
            desk.stay(request, context, send_response_callback)

        stay.experimental_non_blocking = True  # type: ignore[attr-defined]  # as in grpc's own health service
        self._handlers: dict[str, Any] = {
            enrolment.path(enrolment.AUTHORITY): grpc.unary_unary_rpc_method_handler(desk.show_authority),
            enrolment.path(enrolment.ENROL): grpc.unary_unary_rpc_method_handler(desk.enrol),
            enrolment.path(enrolment.DESCRIBE): grpc.unary_unary_rpc_method_handler(desk.describe),
            enrolment.path(enrolment.STAY): grpc.unary_stream_rpc_method_handler(stay),
        }

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """Return our handler for our methods."""
        return self._handlers.get(handler_call_details.method) or continuation(handler_call_details)


def _host(peer: str) -> str:
    """Return the host of gRPC's "ipv4:192.0.2.1:5000" or "ipv6:%5B::1%5D:5000"."""
    return peer.rpartition(":")[0] or peer
