"""Addresses as people write them, and the way there: through the proxy of the environment, never to oneself."""

import os
import socket

import grpc
import pytest

from fl_common.errors import NetworkError
from fl_common.network.addresses import EXCEPTIONS, PROXIES, dial, join, parse, proxy_of, spare_own
from tests.support.proxies import proxy


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in (*PROXIES, *EXCEPTIONS):
        for each in (name, name.upper()):
            monkeypatch.setenv(each, "")  # what a test sets is undone at the end, then
            monkeypatch.delenv(each)


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("server.example:9092", "server.example", 9092),
        ("127.0.0.1:1", "127.0.0.1", 1),
        ("[::1]:65535", "::1", 65535),
        ("[fe80::1%eth0]:9092", "fe80::1%eth0", 9092),
        ("my_server-1:80", "my_server-1", 80),
    ],
)
def test_an_address_is_a_host_and_a_port(text, host, port):
    assert parse(text) == (host, port)
    assert join(host, port) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("http://server:9092", "Leave out http://"),
        ("https://server:9092/", "Leave out https://"),
        ("grpc://[::1]:9092", "Leave out grpc://"),
        ("server:9092/fleet", "HOST:PORT"),
        ("server", "HOST:PORT"),
        ("server:", "HOST:PORT"),
        (":9092", "HOST:PORT"),
        ("server:port", "HOST:PORT"),
        ("server:-1", "HOST:PORT"),
        ("server:9²", "HOST:PORT"),
        ("server:0", "from 1 to 65535"),
        ("server:65536", "from 1 to 65535"),
        ("server:99999999999999999999", "from 1 to 65535"),
        ("::1:9092", "in brackets: [::1]"),
        ("a:b:9092", "neither a name nor an IP address"),
        ("[server]:9092", "neither a name nor an IP address"),
        ("me@server:9092", "neither a name nor an IP address"),
        ("my server:9092", "neither a name nor an IP address"),
        ("", "HOST:PORT"),
    ],
)
def test_what_is_no_address_is_said_to_be_none(text, words):
    with pytest.raises(NetworkError) as caught:
        parse(text, "--server")
    assert str(caught.value).startswith("--server takes HOST:PORT")
    assert words in str(caught.value)
    assert caught.value.exit_code == 1


def test_a_connection_goes_through_the_proxy_with_its_password(monkeypatch, listener):
    with proxy() as through:
        monkeypatch.setenv("https_proxy", through.url.replace("//", "//me:pass%20word@"))
        with dial(f"elsewhere.example:{listener.getsockname()[1]}", 5.0):
            listener.accept()[0].close()
    (request,) = through.asked
    assert request.startswith(f"CONNECT elsewhere.example:{listener.getsockname()[1]} HTTP/1.")
    assert "Proxy-Authorization: Basic bWU6cGFzcyB3b3Jk" in request


def test_a_proxy_that_refuses_is_named_and_its_password_is_not(monkeypatch):
    with proxy(refuse=True) as through:
        monkeypatch.setenv("https_proxy", through.url.replace("//", "//me:password@"))
        with pytest.raises(OSError, match=r"the proxy 127\.0\.0\.1:.* 407") as caught:
            dial("elsewhere.example:9", 5.0)
        assert "password" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "variables", "through"),
    [
        ("server.example", {"https_proxy": "http://p:1"}, "http://p:1"),
        ("server.example", {"http_proxy": "http://p:1", "grpc_proxy": "http://q:1"}, "http://q:1"),
        ("server.example", {"https_proxy": "socks5://p:1"}, ""),
        ("server.example", {"HTTPS_PROXY": "http://p:1"}, ""),
        ("server.example", {"https_proxy": "http://p:1", "no_proxy": "other, .EXAMPLE"}, ""),
        (
            "server.example",
            {"https_proxy": "http://p:1", "no_proxy": "server.example", "no_grpc_proxy": "x"},
            "http://p:1",
        ),
        ("10.1.2.3", {"https_proxy": "http://p:1", "no_proxy": "10.0.0.0/8"}, ""),
        ("11.1.2.3", {"https_proxy": "http://p:1", "no_proxy": "10.0.0.0/8"}, "http://p:1"),
        ("localhost", {"https_proxy": "http://p:1"}, ""),
        ("127.0.0.9", {"https_proxy": "http://p:1"}, ""),
        ("::1", {"https_proxy": "http://p:1"}, ""),
        ("fd00::1", {"https_proxy": "http://p:1"}, "http://p:1"),
    ],
)
def test_our_sockets_and_grpc_take_the_same_way(monkeypatch, host, variables, through):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert proxy_of(host) == through


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.0.0.9", "[::1]"])
@pytest.mark.parametrize("excepted", [{}, {"NO_PROXY": "intra.net"}, {"no_grpc_proxy": "intra.net"}])
@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "grpc_proxy"])
def test_grpc_to_this_machine_itself_goes_through_no_proxy(monkeypatch, host, excepted, variable):
    for name, value in excepted.items():
        monkeypatch.setenv(name, value)
    with proxy() as through:
        monkeypatch.setenv(variable, through.url)
        spare_own()
        assert all("intra.net" in os.environ[name.lower()] for name in excepted)
        with grpc.insecure_channel(f"{host}:9") as channel, pytest.raises(grpc.RpcError):
            channel.unary_unary("/a/b")(b"", timeout=5)
        with grpc.insecure_channel("elsewhere.example:9") as channel, pytest.raises(grpc.RpcError):
            channel.unary_unary("/a/b")(b"", timeout=5)
    assert [request.split()[1] for request in through.asked if "elsewhere" not in request] == []
    assert any("elsewhere.example:9" in request for request in through.asked)


def test_the_names_of_a_stack_join_what_no_proxy_holds_already(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://p:1")
    monkeypatch.setenv("http_proxy", "http://p:1")
    monkeypatch.setenv("no_proxy", ".intra.net")
    monkeypatch.setenv("FL_NO_PROXY", "server, control")
    spare_own()
    assert [proxy_of(host) for host in ("server", "control", "a.intra.net", "elsewhere.example")] == [
        "",
        "",
        "",
        "http://p:1",
    ]


def test_an_environment_without_proxies_is_left_as_it_is():
    before = dict(os.environ)
    spare_own()
    assert dict(os.environ) == before
