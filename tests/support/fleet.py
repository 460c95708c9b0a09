"""`fl server` and its clients as processes of their own, on loopback, with TLS and keys, driven by commands."""

import subprocess
from pathlib import Path

from fl_server.access import home_files
from fl_server.processes.listening import free_ports
from tests.integration.conftest import FL, Event, Start, events, fl, until

Process = subprocess.Popen[str]


class Fleet:
    """A server and its addresses. Logs are in `directory`, by the names of what wrote them."""

    def __init__(
        self, start: Start, directory: Path, *, store: Path | None = None, under: tuple[str, ...] = ()
    ) -> None:
        self.start = start
        self.directory = directory
        self.store = store or directory / "store"
        self.fleet, self.control, self.appio = free_ports(3)
        self._under = under  # what the server's command is run by, such as setpriv
        self.server = self.serve("server")
        entry = home_files.existing(self.store / ".superlink")
        self.token = home_files.enrolment_token(entry, uses=100, seconds=600.0).text

    def serve(self, name: str, **more: str) -> Process:
        """Start the server, again under another name, and wait until it is up."""
        self.server = self.start(
            *self._under, FL, "server", "--store", str(self.store), "--fleet-port", str(self.fleet),
            "--control-port", str(self.control), "--appio-port", str(self.appio), log=f"{name}.log", **more,
        )  # fmt: skip
        until(lambda: "server is up" in self.log(name), "the server", self.server)
        return self.server

    def log(self, name: str) -> str:
        path = self.directory / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def begin(self, name: str, *arguments: str, token: str = "", log: str = "") -> Process:
        """Start a client under a token."""
        return self.start(
            FL, "client", "--server", f"127.0.0.1:{self.fleet}", "--state", str(self.directory / name), *arguments,
            log=f"{log or name}.log", FL_ENROLL_TOKEN=token or self.token,
        )  # fmt: skip

    def client(self, name: str, *arguments: str, token: str = "") -> Process:
        """Start a client, and wait until it has joined."""
        client = self.begin(name, *arguments, token=token)
        until(lambda: "joined" in self.log(name), f"{name} to join", client)
        return client

    def fl(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a command beside the server."""
        return fl(*arguments, FL_STORE=str(self.store))

    def running(self, *arguments: str, log: str = "run") -> Process:
        """Begin a run."""
        return self.start(*self._run(*arguments), log=f"{log}.log")

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run to the end."""
        return fl(*self._run(*arguments)[1:])

    def events(self, run: str, kind: str = "") -> list[Event]:
        return events(self.store / run, kind)

    def _run(self, *arguments: str) -> list[str]:
        store = ("--store", str(self.store))
        return [FL, "run", "--server", f"127.0.0.1:{self.control}", *store, "--json", *arguments]
