"""Calls that were begun and not finished: each holds a thread and what has come of it, so they have limits here.

gRPC gives a call a thread as soon as its header is there, and has it wait for the rest without end. Here who is refused
by the header is refused at once; a body has a time; and an address, or a key, has only so many bodies on their way.
Those of strangers, which are short, are read a few at a time.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from flwr.common.constant import PUBLIC_KEY_HEADER
from flwr.supercore.utils import get_metadata_bytes

from fl_common.trust import enrolment

FLEET = "/flwr.proto.Fleet/"
BEFORE_ONE_IS_KNOWN = frozenset(
    (
        *(enrolment.path(method) for method in (enrolment.AUTHORITY, enrolment.ENROL, enrolment.STAY)),
        *(FLEET + method for method in ("ActivateNode", "RegisterNode")),
    )
)
LOOK_SECONDS = 0.5
MANY = "too many calls that are not finished; try again"


@dataclass(frozen=True)
class Limit:
    """What bodies may be on their way: `seconds` each, `one` by address or key, `all` together.

    As many calls as `queue` wait for a place by address or key, and four times that together: each holds a thread.
    """

    seconds: float
    one: int
    all: int
    queue: int = 64


STRANGERS = Limit(seconds=5.0, one=2, all=4)
KNOWN = Limit(seconds=120.0, one=8, all=256)  # a node pushes two objects at once, polls, and says that it is there


def refused(message: str, code: grpc.StatusCode = grpc.StatusCode.UNAUTHENTICATED) -> Any:
    """Return a handler that refuses a call for its header; whatever would still come is not waited for."""

    def refuse(request: Any, context: grpc.ServicerContext) -> Any:
        context.abort(code, message)

    refuse.needs_no_request = True  # type: ignore[attr-defined]
    return grpc.unary_unary_rpc_method_handler(refuse)


class Bodies:
    """Counts the bodies on their way, and cancels those that take too long."""

    def __init__(self, limit: Limit, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self._clock = clock
        self._changed = threading.Condition()
        self._of: Counter[str] = Counter()
        self._queue: Counter[str] = Counter()
        self._due: dict[int, tuple[float, Callable[[], object]]] = {}

    @contextmanager
    def on_its_way(self, whose: str, context: grpc.ServicerContext) -> Iterator[None]:
        """Have a place for a body, for a while. Aborts the call where none gets free in time."""
        with self._changed:
            if not self._has_room(whose) and not self._waited(whose):
                context.abort(grpc.StatusCode.UNAVAILABLE, MANY)
            self._of[whose] += 1
            self._due[id(context)] = (self._clock() + self.limit.seconds, context.cancel)
        try:
            yield
        finally:
            with self._changed:
                _less(self._of, whose)
                del self._due[id(context)]
                self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._due)

    def end_overdue(self) -> None:
        """Cancel the calls whose bodies had their time."""
        with self._changed:
            overdue = [cancel for due, cancel in self._due.values() if due <= self._clock()]
        for cancel in overdue:
            cancel()

    def _waited(self, whose: str) -> bool:
        """Wait for room; False where too many do already, or none comes."""
        if self._queue[whose] >= self.limit.queue or self._queue.total() >= 4 * self.limit.queue:
            return False
        self._queue[whose] += 1
        try:
            return self._changed.wait_for(lambda: self._has_room(whose), self.limit.seconds)
        finally:
            _less(self._queue, whose)

    def _has_room(self, whose: str) -> bool:
        return self._of[whose] < self.limit.one and len(self._due) < self.limit.all


class HalfOpen(grpc.ServerInterceptor):
    """Stands before all others of a server: has each call's body read within its limit."""

    def __init__(self, strangers: Limit = STRANGERS, known: Limit = KNOWN) -> None:
        self.strangers, self.known = Bodies(strangers), Bodies(known)
        threading.Thread(target=self._look, name="half-open", daemon=True).start()

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """Make a call of one request into one whose request is read here."""
        handler = continuation(handler_call_details)
        if handler is None or handler.request_streaming:
            return handler
        inner = handler.unary_stream if handler.response_streaming else handler.unary_unary
        bodies = self.strangers if handler_call_details.method in BEFORE_ONE_IS_KNOWN else self.known
        key = get_metadata_bytes(handler_call_details.invocation_metadata, PUBLIC_KEY_HEADER)

        def call(requests: Iterator[Any], context: grpc.ServicerContext, *more: Any) -> Any:
            return inner(_read(requests, context), context, *more)

        def _read(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            if getattr(inner, "needs_no_request", False):
                return None
            whose = key.hex() if key and bodies is self.known else _host(context.peer())
            with bodies.on_its_way(whose, context):
                request = next(requests, None)
            if request is None:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "expected one request; got none")
            return request

        streams = handler.response_streaming
        make = grpc.stream_stream_rpc_method_handler if streams else grpc.stream_unary_rpc_method_handler
        if getattr(inner, "experimental_non_blocking", False):
            call.experimental_non_blocking = True  # type: ignore[attr-defined]
        return make(call, handler.request_deserializer, handler.response_serializer)

    def _look(self) -> None:
        while True:
            time.sleep(LOOK_SECONDS)
            for bodies in (self.strangers, self.known):
                bodies.end_overdue()


def _less(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]


def _host(peer: str) -> str:
    """Return the host of gRPC's "ipv4:192.0.2.1:5000" or "ipv6:%5B::1%5D:5000"."""
    return peer.rpartition(":")[0] or peer
