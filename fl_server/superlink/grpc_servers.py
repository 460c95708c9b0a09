"""The gRPC servers of the Fleet and Control APIs: Flower's, but for certificates that can be renewed while they run."""

import concurrent.futures
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc

from fl_common.errors import ParterreError
from fl_server.access.home_files import Access
from fl_server.superlink.fleet import reception
from fl_server.superlink.fleet.half_open_calls import HalfOpen

log = logging.getLogger(__name__)

MOST_CALLS = 8192  # at once: each client holds one open, and makes one at a time
MOST_STREAMS = 2048  # of one connection: a process may be many clients
THREADS = 1000


def make(
    access: Access,
    first: Sequence[grpc.ServerInterceptor],
    before_stop: Callable[[], None],
    servicer_and_add_fn: tuple[Any, Callable[[Any, grpc.Server], None]],
    server_address: str,
    max_message_length: int,
    certificates: tuple[bytes, bytes, bytes] | None = None,
    interceptors: Sequence[grpc.ServerInterceptor] | None = None,
    *,
    last: Sequence[grpc.ServerInterceptor] = (),
) -> grpc.Server:
    """Make a server as Flower does, with `first` and `last` around its interceptors.

    Its certificates can be renewed. `before_stop` is called when it is told to stop. What nodes may leave at the Fleet
    API is bounded behind all of it.
    """
    servicer, add = servicer_and_add_fn
    bounds = reception.of(servicer)
    most = reception.OBJECT_BYTES if bounds else max_message_length
    server = _server(max_message_length, most, [HalfOpen(), *first, *(interceptors or []), *last, *bounds])
    add(servicer, server)
    if certificates is None:
        port = server.add_insecure_port(server_address)
    else:
        port = server.add_secure_port(server_address, _credentials(access))
    server.bound_address = f"{server_address.rpartition(':')[0]}:{port}"  # type: ignore[attr-defined]
    stop = server.stop

    def stop_after(grace: float | None) -> threading.Event:
        before_stop()
        return stop(grace)

    server.stop = stop_after  # type: ignore[method-assign]
    return server


def _server(most_sent: int, most_received: int, interceptors: list[grpc.ServerInterceptor]) -> grpc.Server:
    """Return a server like Flower's, for more connections that are open and idle."""
    return grpc.server(
        concurrent.futures.ThreadPoolExecutor(max_workers=THREADS),
        maximum_concurrent_rpcs=MOST_CALLS,
        options=[
            ("grpc.max_concurrent_streams", MOST_STREAMS),
            ("grpc.server_handshake_timeout_ms", 20_000),
            ("grpc.max_connection_idle_ms", 600_000),
            ("grpc.max_send_message_length", most_sent),
            ("grpc.max_receive_message_length", most_received),
            ("grpc.keepalive_time_ms", 210_000),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.keepalive_permit_without_calls", 0),
        ],
        interceptors=interceptors,
    )


def _credentials(access: Access) -> grpc.ServerCredentials:
    """Return credentials that are read again, at a handshake, when the certificate's file has changed."""
    lock = threading.Lock()
    known = refused = _stamp(access)

    def configuration() -> Any:
        return grpc.ssl_server_certificate_configuration([access.files.pair()])

    def fetch() -> Any:
        nonlocal known, refused
        with lock:
            if (stamp := _stamp(access)) == known:
                return None
            try:
                fresh = configuration()
            except (ParterreError, OSError) as error:
                if stamp != refused:  # said once, and tried again at each handshake: a half may have come
                    log.error("the new certificate cannot be used, and the one before is kept: %s", error)
                refused = stamp
                return None
            known = stamp
            log.warning("the server's certificate was renewed")
            return fresh

    return grpc.dynamic_ssl_server_credentials(configuration(), fetch)


def _stamp(access: Access) -> tuple[tuple[int, int], ...]:
    return tuple(_mark(path) for path in (access.files.certificate, access.files.key))


def _mark(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_ino)
