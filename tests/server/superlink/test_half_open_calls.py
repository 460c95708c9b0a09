"""Calls whose body never comes hold neither the threads nor the memory of a server."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest

from fl_common.trust import enrolment
from fl_server.superlink.fleet.half_open_calls import FLEET, MANY, HalfOpen, Limit, refused
from tests.support.driven_server import until

ENROL, POLL, STAY = enrolment.path(enrolment.ENROL), f"{FLEET}PullMessages", enrolment.path(enrolment.STAY)
THREADS = 20


class Methods(grpc.GenericRpcHandler):
    """Answers each method with what it was sent, but for those that are refused by their header."""

    def __init__(self):
        self.stay = threading.Event()

    def service(self, details):
        if details.method.endswith("Refused"):
            return refused("not you")
        if details.method == STAY:
            return grpc.unary_stream_rpc_method_handler(self._stay())
        return grpc.unary_unary_rpc_method_handler(lambda request, context: request)

    def _stay(self):
        def stay(request, context, send):
            self.stay.set()

        stay.experimental_non_blocking = True
        return stay


@pytest.fixture
def served():
    half = HalfOpen(Limit(0.6, one=2, all=4, queue=3), Limit(0.6, one=4, all=8, queue=3))
    server = grpc.server(ThreadPoolExecutor(THREADS), interceptors=[half])
    methods = Methods()
    server.add_generic_rpc_handlers([methods])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    half.methods, half.address = methods, f"127.0.0.1:{port}"
    yield half
    server.stop(None).wait()


@pytest.fixture
def channel(served):
    with grpc.insecure_channel(served.address) as channel:
        yield channel


@contextmanager
def half_calls(channel, method, count):
    """Calls of which only the header is sent; yields them."""
    ends = threading.Event()

    def never():
        ends.wait()
        yield from ()

    calls = [channel.stream_unary(method).future(never(), wait_for_ready=True) for _ in range(count)]
    try:
        yield calls
    finally:
        for call in calls:
            call.cancel()
        ends.set()


def ask(channel, method, text=b"text"):
    return channel.unary_unary(method)(text, timeout=30, wait_for_ready=True)


def code_of(call):
    return call.exception(timeout=30).code()


def test_calls_are_answered_as_without_it(served, channel):
    assert [ask(channel, method) for method in (ENROL, POLL)] == [b"text"] * 2
    stay = channel.unary_stream(STAY)(b"here")
    assert served.methods.stay.wait(30)
    stay.cancel()
    assert len(served.strangers) == len(served.known) == 0


def test_who_is_refused_for_the_header_is_not_waited_for(served, channel):
    with half_calls(channel, f"{FLEET}Refused", 3 * THREADS) as calls:
        assert {code_of(call) for call in calls} == {grpc.StatusCode.UNAUTHENTICATED}
        assert len(served.known) == 0


@pytest.mark.parametrize(("method", "other"), [(ENROL, POLL), (POLL, ENROL)])
def test_headers_without_a_body_leave_threads_for_others_and_are_ended_in_time(served, channel, method, other):
    with half_calls(channel, method, 3 * THREADS) as calls:
        assert ask(channel, other) == b"text"
        ended = [call.exception(timeout=30) for call in calls]
    many = [error for error in ended if error.details() == MANY]
    assert {error.code() for error in many} == {grpc.StatusCode.UNAVAILABLE}
    assert 3 * THREADS - 2 * 11 <= len(many) < 3 * THREADS  # the others had a place, or waited for one
    assert {error.code() for error in ended} == {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    until(lambda: not len(served.strangers) and not len(served.known))
    assert ask(channel, method) == b"text"


def test_one_key_takes_no_place_from_another(served, channel):
    from flwr.common.constant import PUBLIC_KEY_HEADER

    def call(key):
        return channel.stream_unary(POLL).future(iter([b"text"]), metadata=[(PUBLIC_KEY_HEADER, key)])

    ends = threading.Event()

    def never():
        ends.wait()
        yield from ()

    one = [channel.stream_unary(POLL).future(never(), metadata=[(PUBLIC_KEY_HEADER, b"one")]) for _ in range(4)]
    until(lambda: len(served.known) == 4)
    assert call(b"another").result(timeout=30) == b"text"
    ends.set()
    for each in one:
        each.cancel()
