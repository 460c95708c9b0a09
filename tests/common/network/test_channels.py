"""Channels that last find a server again that comes back, and carry messages of any size."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from fl_common.network import channels

LARGE = b"x" * (8 << 20)  # more than gRPC's usual 4 MB


def serving(port: int) -> tuple[grpc.Server, int]:
    server = grpc.server(ThreadPoolExecutor(2), options=[*channels.OPTIONS, ("grpc.so_reuseport", 0)])
    echo = grpc.unary_unary_rpc_method_handler(lambda request, context: request)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("echo", {"echo": echo})])
    found = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server, found


def test_a_server_that_was_away_is_found_again_and_large_messages_pass() -> None:
    server, port = serving(0)
    with channels.lasting(f"127.0.0.1:{port}", None) as channel:
        call: Any = channel.unary_unary("/echo/echo")
        assert call(LARGE) == LARGE
        server.stop(None).wait()
        with pytest.raises(grpc.RpcError):
            call(b"")
        server, _ = serving(port)
        assert call(b"again", wait_for_ready=True, timeout=60) == b"again"
        server.stop(None).wait()


@pytest.mark.parametrize("root", [None, b"a CA"])
def test_no_channel_waits_for_minutes_before_it_tries_again(
    monkeypatch: pytest.MonkeyPatch, root: bytes | None
) -> None:
    given: list[Any] = []
    for name in ("insecure_channel", "secure_channel"):
        monkeypatch.setattr(grpc, name, lambda *_, options: given.append(dict(options)))
    channels.lasting("127.0.0.1:1", root)
    (options,) = given
    assert options["grpc.max_reconnect_backoff_ms"] <= 10_000
