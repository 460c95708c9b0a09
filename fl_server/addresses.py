"""Where a server listens: its addresses, ports that are free, and whether somebody accepts connections there."""

import secrets
import socket
from dataclasses import dataclass

from fl_common.errors import NetworkError

ANY = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to
PORTS = range(16384, 32768)  # ephemeral ports begin at 32768, or higher


@dataclass(frozen=True)
class Addresses:
    """Where the three APIs listen, as HOST:PORT. Only Fleet is for clients."""

    fleet: str
    control: str
    appio: str

    @classmethod
    def local(cls) -> "Addresses":
        """Return three free ports on loopback."""
        return cls(*(f"127.0.0.1:{port}" for port in free_ports(3)))


def free_ports(count: int) -> list[int]:
    """Return ports that are free now, on loopback.

    They are drawn at random from below the system's ephemeral range: a port that the system would give to any outgoing
    connection may be gone a second later, when the SuperLink wants it.
    """
    found: list[int] = []
    while len(found) < count:
        port = secrets.choice(PORTS)
        if port not in found and _is_free(port):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def called(address: str) -> str:
    """Return the address by which this machine calls what listens on `address`."""
    host, _, port = address.rpartition(":")
    return f"localhost:{port}" if host.strip("[]") in ANY else address


def check_free(address: str, purpose: str) -> None:
    """Raise NetworkError where `address` cannot be listened on."""
    host, _, port = address.rpartition(":")
    try:
        family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host.strip("[]"), int(port)))
    except (OSError, ValueError, OverflowError) as error:
        raise NetworkError(
            f"cannot listen on {address} for {purpose}: {error}. Stop what uses it, or choose another address."
        ) from None


def accepts(address: str) -> bool:
    """Say whether connections to an address are accepted."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        socket.create_connection((host if host not in ANY else "localhost", int(port)), timeout=0.5).close()
    except OSError:
        return False
    return True
