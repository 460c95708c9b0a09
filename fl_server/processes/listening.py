"""Where a server listens: its addresses, ports that are free, and whether somebody accepts connections there."""

import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from fl_common.errors import NetworkError
from fl_common.network.addresses import host_of, join, parse

ANY = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to
PORTS = range(16384, 32768)  # ephemeral ports begin at 32768, or higher


@dataclass(frozen=True)
class Addresses:
    """Where the three APIs listen, as HOST:PORT. Only Fleet is for clients."""

    fleet: str
    control: str
    appio: str

    @classmethod
    def of(cls, host: str, fleet_port: int, control_host: str, control_port: int, appio_port: int) -> "Addresses":
        """Return the addresses of a server. Raises NetworkError where one is none, or where two are the same."""
        ports = {"--fleet-port": fleet_port, "--control-port": control_port, "--appio-port": appio_port}
        for option, port in ports.items():
            if not 0 < port < 65536:
                raise NetworkError(f"{option} takes a number from 1 to 65535; got {port}.")
        if len(set(ports.values())) < len(ports):
            given = ", ".join(f"{option} {port}" for option, port in ports.items())
            raise NetworkError(f"the Fleet, Control and ServerAppIo APIs need a port each; got {given}.")
        for option, name in (("--host", host), ("--control-host", control_host)):
            host_of(name, f"{option} takes a name or an IP address of this machine; got {name!r}")
        return cls(join(host, fleet_port), join(control_host, control_port), join("127.0.0.1", appio_port))

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
    host, port = parse(address)
    return join("localhost", port) if host in ANY else address


def known_as(address: str, names: Sequence[str]) -> str:
    """Return the address by which machines elsewhere call what listens on `address`: by the first of its names."""
    host, port = parse(address)
    return join(next(iter(names), "localhost"), port) if host in ANY else address


def check_free(address: str, purpose: str) -> None:
    """Raise NetworkError where `address` cannot be listened on."""
    host, port = parse(address, f"the address for {purpose}")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise NetworkError(
            f"cannot listen on {address} for {purpose}: {error}. Stop what uses it, or choose another address."
        ) from None


def accepts(address: str) -> bool:
    """Say whether connections to an address are accepted."""
    host, port = parse(address)
    try:
        socket.create_connection((host if host not in ANY else "localhost", port), timeout=0.5).close()
    except OSError:
        return False
    return True
