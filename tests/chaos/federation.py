"""The federation that the faults happen to: real processes on loopback, and a keeper that restarts what was killed."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from fl_client.process import ClientOptions
from fl_common.processes.forking import ForkServer
from fl_server.processes.listening import free_ports
from tests.chaos.ledger import FOLDER
from tests.chaos.member import ORDERS, REASONS, member
from tests.chaos.memory import of_tree
from tests.chaos.proxy import Proxy
from tests.chaos.schedule import CLIENTS, ROUNDS
from tests.integration.conftest import FL, descendants, environment, events, fl

ROOT = Path(__file__).parents[2]
PATIENCE = 300.0
LOOK_SECONDS = 0.5
CHILDREN = ("superlink", "serverapp")  # of the server, by the logs that they write
PRELOAD = (
    "fl_client.process",
    "fl_client.app",
    "fl_client.link.node",
    "fl_common.tasks.builtin.digits",
    "tests.chaos.member",
)


class Federation:
    """`fl server`, clients behind a proxy and `fl run`. `tick` restarts a server and clients that were killed."""

    def __init__(self, directory: Path, *, store: Path, seed: int) -> None:
        self.directory = directory
        self.store = store
        self.seed = seed
        self.ledger = directory / "ledger"
        self.temporary = directory / "tmp"
        for each in (self.ledger, self.temporary, directory / "orders"):
            each.mkdir()
        fleet, self.control, appio, *lines = free_ports(3 + CLIENTS)
        self.ports = [fleet, self.control, appio, *lines]
        self.proxy = Proxy(fleet, lines)
        self.fork_server = ForkServer(PRELOAD)
        self.clients: list[Any] = [None] * CLIENTS
        self.clocks: dict[int, float] = {}  # clients whose clocks are off, and until when at least
        self.restarts = 0
        self._looked = 0.0
        self.seen: set[psutil.Process] = set()
        self.course: dict[int, dict[str, int]] = {}  # the server's memory, by the round that was committed last
        self._token = ""
        self._environment = {
            FOLDER: str(self.ledger), "TMPDIR": str(self.temporary), "PYTHONPATH": str(ROOT),
            "FL_CACHE": str(directory / "cache"),
            "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        self._command = (
            FL, "server", "--store", str(store), "--fleet-port", str(fleet), "--control-port", str(self.control),
            "--appio-port", str(appio), "--lost-after", "5", "--max-restarts", "10",
        )  # fmt: skip
        self.server = self._start("server", *self._command)

    # ---- starting and stopping

    def begin(self) -> None:
        """Start the clients and the run, once the server is up."""
        until(lambda: "server is up" in self.log("server"), "the server to be up", self)
        made = fl("enroll", "token", "--uses", str(CLIENTS), "--store", str(self.store))
        assert made.returncode == 0, made.stderr
        self._token = made.stdout.strip()
        self.tick()
        self.run = self._start(
            "run", FL, "run", "--server", f"127.0.0.1:{self.control}", "--store", str(self.store), "--json",
            "--allow-partial",
            "--rounds", str(ROUNDS), "--seed", str(self.seed), "--strategy", "tests.chaos.recording:Recorded",
            *settings(
                partitions=CLIENTS, min_clients=3, quorum=3, deadline_seconds=20, evaluate_deadline_seconds=6,
                wait_seconds=60, max_repeats=10, fraction_evaluate=0.25, keep=2 * ROUNDS,
            ),
        )  # fmt: skip

    def tick(self) -> None:
        """Do what Docker or systemd would: start what was killed again. Remember every process there was."""
        if self.server.poll() is not None and self.server.returncode != 0:
            self.restarts += 1
            self.server = self._start("server", *self._command)
        for number, client in enumerate(self.clients):
            if client is None or not client.is_alive():
                self.clients[number] = self._client(number)
        self._release_liars()
        self._release_clocks()
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            self.seen |= set(descendants(os.getpid()))
            if hasattr(self, "run") and self.server.poll() is None:
                self.course[self.committed()] = self.whole_memory() or self.course.get(self.committed(), {})

    def _release_liars(self) -> None:
        """A lie is told until it was recognised: the liar may have been killed, or late."""
        for path in (self.directory / "orders").glob("*.hostile"):
            kind = json.loads(path.read_text())
            if any(event["reason"] == REASONS[kind] for event in self.events("rejected")):
                path.unlink()

    def _release_clocks(self) -> None:
        """A clock is off until that was noticed: its client may have been cut off, or killed."""
        for client, until in list(self.clocks.items()):
            if time.monotonic() > until and self.clock_was_off(client):
                order(self.orders(client).with_suffix(".clock"), 0.0)
                del self.clocks[client]

    def close(self) -> None:
        """Stop everything as a person would, and kill what does not follow."""
        self.seen |= set(descendants(os.getpid()))
        self.fork_server.stop()
        for process in (self.run, self.server) if hasattr(self, "run") else (self.server,):
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
        self.proxy.close()

    def _start(self, name: str, *command: str) -> "subprocess.Popen[str]":
        with (self.directory / f"{name}.log").open("a") as log:
            return subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, text=True, env=environment(**self._environment), cwd=ROOT
            )

    def _client(self, number: int) -> Any:
        options = ClientOptions(
            server=f"127.0.0.1:{self.proxy.ports[number]}",
            state=str(self.directory / f"client-{number}"),
            token=self._token,
        )
        return self.fork_server.start(
            member, options, name=f"client-{number}", log_file=self.directory / f"client-{number}.log",
            environment=self._environment | {ORDERS: str(self.orders(number))},
        )  # fmt: skip

    # ---- looking

    @property
    def over(self) -> bool:
        """Whether the run has ended: there is nothing left to do to it."""
        return self.run.poll() is not None

    def log(self, name: str) -> str:
        path = self.directory / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def clock_was_off(self, client: int) -> bool:
        """Say whether since its clock jumped a client was refused, misdated a reply, or had calls time out."""
        text = self.log(f"client-{client}").rpartition("the clock is off by")[2]
        return any(sign in text for sign in ("Invalid timestamp", "dated by a wrong clock", "DEADLINE_EXCEEDED"))

    def orders(self, client: int) -> Path:
        return self.directory / "orders" / str(client)

    @property
    def directory_of_run(self) -> Path | None:
        """Where the run is; None until it has begun."""
        return next((path.parent for path in self.store.glob("*/settings.toml")), None)

    def events(self, kind: str = "") -> list[dict[str, Any]]:
        run = self.directory_of_run
        return events(run, kind) if run is not None else []

    def committed(self) -> int:
        """Return how many rounds are committed."""
        return max((event["round"] for event in self.events("round")), default=0)

    def process(self, name: str) -> psutil.Process | None:
        """Return the server's child that writes NAME.log in its home: "superlink" or "serverapp"."""
        log = str(self.store / ".superlink" / f"{name}.log")
        for each in descendants(self.server.pid):
            try:
                if str(Path(f"/proc/{each.pid}/fd/1").readlink()) == log and each.status() != psutil.STATUS_ZOMBIE:
                    return each
            except (OSError, psutil.Error):
                continue
        return None

    def whole_memory(self) -> dict[str, int]:
        """Return what `memory` does where all of the server's processes are there; nothing while one of them is not."""
        found = self.memory() if self.server.poll() is None else {}
        return found if {"server", *CHILDREN} <= found.keys() else {}

    def memory(self) -> dict[str, int]:
        """Return the bytes that the server and all its children hold, by what they are."""
        names = {process.pid: name for name in CHILDREN if (process := self.process(name)) is not None}
        names[self.server.pid] = "server"
        return of_tree(self.server.pid, lambda process: names.get(process.pid, "helpers"))


def settings(**values: Any) -> list[str]:
    return [text for key, value in values.items() for text in ("--set", f"{key}={value}")]


def until(condition: Callable[[], Any], what: str, federation: Federation, patience: float = PATIENCE) -> Any:
    """Wait for a condition, keeping the federation going meanwhile."""
    limit = time.monotonic() + patience
    while not (value := condition()):
        if time.monotonic() > limit:
            raise TimeoutError(f"waited {patience:g} s for {what}; {federation.committed()} rounds are committed")
        if hasattr(federation, "run"):
            federation.tick()
        time.sleep(0.05)
    return value


def send(process: psutil.Process | None, number: signal.Signals) -> bool:
    """Send a signal to a process that is there."""
    if process is None:
        return False
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return False
    return True


def order(path: Path, what: Any) -> None:
    """Give a client an order."""
    temporary = path.with_name(f"new-{path.name}")
    temporary.write_text(json.dumps(what))
    temporary.replace(path)
