"""A whole federation on this machine: a SuperLink, its ServerApps and N clients, as child processes of this one."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from fl_client.process import ClientOptions, serve
from fl_common.errors import NetworkError
from fl_common.nursery import Nursery
from fl_server import access
from fl_server.addresses import Addresses
from fl_server.control import Control
from fl_server.kept_up import KeptUp
from fl_server.link_database import LinkDatabase
from fl_server.runs import Run
from fl_server.superlink import PRELOAD, SuperLink
from fl_server.supervisor import LIMIT, Say, Supervisor

LOGS = "logs"
HOME = ".flower"
FINISH_SECONDS = 10.0
MOST_CLIENTS = 100_000
TOKEN_SECONDS = 30 * 86_400.0


class Stopped(BaseException):
    """A signal asked this process to stop. `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into Stopped, so that `finally` clauses and context managers do their work."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)  # once: what follows is the clean-up
        raise Stopped(number)

    before = {each: signal.signal(each, on_signal) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


class LocalFederation:
    """Starts on entry, stops everything on exit. Logs go to `directory`/logs.

    CA, keys and enrolment token are made for it and thrown away with it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        clients: int,
        task: str = "",
        addresses: Addresses | None = None,
        max_restarts: int = LIMIT,
        say: Say = lambda text: None,
        insecure: bool = False,
    ) -> None:
        self._directory = directory
        self._max_restarts = max_restarts
        self._say = say
        self._count = clients
        self._task = task
        self.addresses = addresses or Addresses.local()
        self._home = directory.resolve() / HOME  # Flower's own files, and all secrets
        self._insecure = insecure
        self._token = ""
        self.nursery = Nursery(("fl_client.process", "fl_client.app", "fl_client.node", *PRELOAD))
        self.clients: list[BaseProcess] = []
        self.superlink: SuperLink | None = None

    def __enter__(self) -> Self:
        logs = self._directory / LOGS
        logs.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self._home, ignore_errors=True)  # an earlier process was killed
        try:
            self.access = access.prepare(self._home, insecure=self._insecure)
            if not self._insecure:
                self._token = self.enrolment_token()
            database = self._home / "state.db"  # so that a SuperLink that falls comes back as the same
            self._supervisor = Supervisor(LinkDatabase(database), self._home, limit=self._max_restarts, say=self._say)
            self.superlink = SuperLink(
                self.nursery,
                self.addresses,
                directory=logs,
                access=self.access,
                database=database,
                environment=self._environment(),
                launched=self._supervisor.launched,
            )
            self._kept = KeptUp(self.superlink, before=self._supervisor.renew, limit=self._max_restarts, say=self._say)
            self._kept.start(wait=False)
            self.clients = [self.start_client(number) for number in range(self._count)]
            self.superlink.wait_until_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def enrolment_token(self) -> str:
        """Return a new token; it admits more clients than one machine can hold."""
        return access.enrolment_token(self.access, uses=MOST_CLIENTS, seconds=TOKEN_SECONDS).text

    def control(self) -> Control:
        """Return a client of its Control API."""
        return access.control(self.access, self.addresses.control)

    def start_client(self, number: int) -> BaseProcess:
        """Start one more client. One that is started again under a number that was there has its key again."""
        return self.nursery.start(
            serve,
            ClientOptions(
                server=self.addresses.fleet,
                task=self._task,
                state="" if self._insecure else str(self._home / f"client-{number}"),
                token=self._token,
                insecure=self._insecure,
            ),
            name=f"client-{number}",
            log_file=self._directory / LOGS / f"client-{number}.log",
            environment=self._environment() | self._threads(),
        )

    def tend(self) -> str:
        """Start again what has ended; to be called often. Return what cannot be mended so, or "" while all is well."""
        try:
            self._kept.tick()
        except NetworkError as error:
            return str(error)
        self._supervisor.tick()
        if self.clients and not any(client.is_alive() for client in self.clients):
            return "every client's process ended"
        return ""

    def let_the_server_finish(self, run: Run) -> None:
        """Wait until the ServerApp has let go of a run that has ended; what it does after that is for its SuperLink.

        Flower's own leave-taking takes a second and a half, and nobody is there to read it.
        """
        limit = time.monotonic() + FINISH_SECONDS
        while run.is_locked() and time.monotonic() < limit:
            time.sleep(0.02)
        for app in self.superlink.executor.apps if self.superlink else []:
            app.kill()

    def last_words(self, name: str, lines: int = 5) -> str:
        """Return the end of a log."""
        path = self._directory / LOGS / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").strip().splitlines()[-lines:]) if path.exists() else ""

    def _environment(self) -> dict[str, str]:
        return {
            "FLWR_HOME": str(self._home),
            "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # several processes share one card
        }

    def _threads(self) -> dict[str, str]:
        """Share the cores out: more threads than cores only take turns."""
        threads = str(max(1, (os.cpu_count() or 1) // max(1, self._count)))
        return {"TF_NUM_INTRAOP_THREADS": threads, "TF_NUM_INTEROP_THREADS": threads, "OMP_NUM_THREADS": threads}

    def _stop(self) -> None:
        self.nursery.stop([client for client in self.clients if client.is_alive()])
        if self.superlink is not None:
            self.superlink.stop()
        self.nursery.stop()
        shutil.rmtree(self._home, ignore_errors=True)
