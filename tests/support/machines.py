"""Machines of their own, as far as the network goes: two network namespaces and a cable between them. Needs root."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.conftest import FL, Start, environment

NETWORK = "192.0.2."  # reserved for documentation: no machine has it
SNIFFER = """
import socket, sys
packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3))
packets.bind((sys.argv[1], 0))
with open(sys.argv[2], "wb", buffering=0) as file:
    print("listening", flush=True)
    while True:
        file.write(packets.recv(1 << 20))
"""


class Machine:
    """A namespace with an address, a home, and a directory to work in."""

    def __init__(self, name: str, address: str, directory: Path) -> None:
        self.name, self.address, self.directory = name, address, directory
        directory.mkdir()

    def command(self, line: str) -> list[str]:
        """Return what runs a shell's line here: in this directory, with `fl` on its path."""
        words = f"cd {self.directory} && export HOME={self.directory} PATH={Path(FL).parent}:$PATH && exec {line}"
        return ["ip", "netns", "exec", self.name, "bash", "-c", words]

    def run(self, line: str, *, seconds: float = 300.0) -> "subprocess.CompletedProcess[str]":
        """Run a line to its end."""
        return subprocess.run(
            self.command(line), capture_output=True, text=True, timeout=seconds, env=environment(), check=False
        )

    def listen(self, start: Start, file: Path) -> "subprocess.Popen[str]":
        """Write down every packet of this machine's cable."""
        program = f"{sys.executable} -c '{SNIFFER}' cable {file}"
        return start(*self.command(program), log="sniffer.log")


@contextmanager
def two_machines(directory: Path, *, called: str) -> Iterator[tuple[Machine, Machine]]:
    """Yield two machines that reach each other and nothing else; the first is known by the name `called` to both."""
    one, two = (
        Machine(f"parterre-{os.getpid()}-{number}", f"{NETWORK}{number}", directory / f"machine-{number}")
        for number in (1, 2)
    )
    try:
        for each in (one, two):
            ip(f"netns add {each.name}")
            hosts = Path("/etc/netns") / each.name / "hosts"  # `ip netns exec` lays it over /etc/hosts
            hosts.parent.mkdir(parents=True)
            hosts.write_text(f"127.0.0.1 localhost\n{one.address} {called}\n")
        ip(f"link add cable netns {one.name} type veth peer name cable netns {two.name}")
        for each in (one, two):
            ip(f"-n {each.name} addr add {each.address}/24 dev cable")
            for link in ("lo", "cable"):
                ip(f"-n {each.name} link set {link} up")
        yield one, two
    finally:
        for each in (one, two):
            subprocess.run(["ip", "netns", "del", each.name], capture_output=True, check=False)
            subprocess.run(["rm", "-rf", f"/etc/netns/{each.name}"], check=False)


def ip(line: str) -> None:
    """Run ip(8); a machine that may not do that is said to be one."""
    try:
        done = subprocess.run(["ip", *line.split()], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no command `ip` here: install iproute2")
    if done.returncode:
        pytest.skip(f"cannot make network namespaces here (`ip {line}`: {done.stderr.strip()}); run as root")
