"""Addresses as people write them, HOST:PORT, and connections to them: through a proxy where the environment says so."""

import base64
import http.client
import ipaddress
import os
import re
import socket
from urllib.parse import unquote, urlsplit

from fl_common.errors import NetworkError

PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")  # in the order in which gRPC looks at them
EXCEPTIONS = ("no_grpc_proxy", "no_proxy")
LOOPBACK = ("localhost", "127.0.0.0/8", "::1/128")
OWN_NAMES = "FL_NO_PROXY"  # names of a stack's own, which compose.yaml and the chart set: they join what is excepted
NAME = re.compile(r"[^\s/@\[\]:?#]+")
DEFAULT_PROXY_PORT = 443  # gRPC's


def parse(address: str, option: str = "the address") -> tuple[str, int]:
    """Return the host and port of HOST:PORT; an IPv6 address stands in brackets. Raises NetworkError."""
    expected = f"{option} takes HOST:PORT, such as 127.0.0.1:9092 or [::1]:9092; got {address!r}"
    if "://" in address:
        raise NetworkError(f"{expected}. Leave out {address.partition('://')[0]}:// and what comes after the port.")
    text, colon, digits = address.rpartition(":")
    if not (text and colon and digits.isascii() and digits.isdecimal()):
        raise NetworkError(f"{expected}.")
    if not 0 < int(digits) < 65536:
        raise NetworkError(f"{expected}. A port is a number from 1 to 65535.")
    return host_of(text, expected), int(digits)


def host_of(text: str, expected: str) -> str:
    """Return a host, an IPv6 address without its brackets. Raises NetworkError that begins with `expected`."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" in bare or bare != text:
        try:
            ipaddress.IPv6Address(bare)
        except ValueError:
            raise NetworkError(f"{expected}. {text} is neither a name nor an IP address.") from None
        if bare == text and "HOST:PORT" in expected:
            raise NetworkError(f"{expected}. Put an IPv6 address in brackets: [{bare}]")
    elif not NAME.fullmatch(bare):
        raise NetworkError(f"{expected}. {text!r} is neither a name nor an IP address.")
    return bare


def join(host: str, port: int) -> str:
    """Return HOST:PORT, an IPv6 address in brackets."""
    bare = host.strip("[]")
    return f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"


def spare_own() -> None:
    """Have nothing in this process and its children go through a proxy to this machine itself, or to its stack."""
    if not any(os.environ.get(name) or os.environ.get(name.upper()) for name in PROXIES):
        return
    own = _entries(os.environ.get(OWN_NAMES, ""))
    for name in EXCEPTIONS:
        before = os.environ.get(name) or (os.environ.get(name.upper(), "") if name == "no_proxy" else "")
        if name in os.environ or name == "no_proxy":
            os.environ[name] = ",".join(dict.fromkeys([*_entries(before), *LOOPBACK, "127.0.0.1", *own]))


def proxy_of(host: str) -> str:
    """Return the URL of the proxy that gRPC goes through to a host, "" where it goes there itself."""
    url = next((os.environ[name] for name in PROXIES if name in os.environ), "")  # one that is set empty counts, too
    excepted = next((os.environ[name] for name in EXCEPTIONS if name in os.environ), "")
    entries = [*LOOPBACK, *_entries(excepted)]
    return url if url.startswith("http://") and not any(_covers(entry, host) for entry in entries) else ""


def dial(address: str, seconds: float) -> socket.socket:
    """Return a TCP connection to HOST:PORT, made the way that gRPC makes its own. Raises OSError or NetworkError."""
    host, port = parse(address)
    if not (url := proxy_of(host)):
        return socket.create_connection((host, port), timeout=seconds)
    proxy = urlsplit(url)
    through = http.client.HTTPConnection(proxy.hostname or "", proxy.port or DEFAULT_PROXY_PORT, timeout=seconds)
    user = ":".join(unquote(part) for part in (proxy.username, proxy.password) if part is not None)
    basic = {"Proxy-Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"} if user else {}
    through.set_tunnel(f"[{host}]" if ":" in host else host, port, basic)
    try:
        through.connect()
    except OSError as error:
        raise OSError(f"the proxy {proxy.hostname}:{proxy.port}: {error.strerror or error}") from None
    connection: socket.socket = through.sock
    return connection


def _entries(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(",") if entry.strip()]


def _covers(entry: str, host: str) -> bool:
    """Say whether an entry of no_proxy is for a host: the end of its name, its address, or a network."""
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return host.lower().endswith(entry.lower())
