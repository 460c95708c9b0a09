"""A whole federation on this machine: a SuperLink, its ServerApps and N clients, as child processes of this one."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from fl_client.process import ClientOptions, serve
from fl_common.errors import NetworkError, ParterreError
from fl_common.processes import memory_limit
from fl_common.processes.forking import ForkServer, last_words
from fl_common.settings.schema import Settings
from fl_server.access import home_files
from fl_server.access.client_records import SLOT
from fl_server.processes.listening import Addresses
from fl_server.processes.log_rotation import rotate
from fl_server.store.disk.server_lock import alone
from fl_server.store.disk.whole_writes import check_room
from fl_server.store.runs import Run
from fl_server.store.seals.trust import VARIABLE as TRUSTED
from fl_server.superlink.database import LinkDatabase
from fl_server.superlink.execution.control import Control
from fl_server.superlink.execution.supervisor import LIMIT, Say, Supervisor
from fl_server.superlink.process import PRELOAD, SuperLink
from fl_server.superlink.restarts import RestartedSuperLink
from parterre.local_clients import LocalClients
from parterre.local_data import LocalData
from parterre.trial import Trial

LOGS = "logs"
HOME = ".flower"
JOINED = " joined as node "  # in a client's log
OWNER = "owner.lock"  # in it: held by the process that runs the federation, whose number it holds
FINISH_SECONDS = 10.0
MOST_CLIENTS = 100_000
TOKEN_SECONDS = 30 * 86_400.0


class Stopped(BaseException):
    """A signal asked this process to stop. `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def stopping_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that end a run: SIGINT, SIGTERM, and SIGHUP, but where `nohup` has that one ignored."""
    kept = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM) if kept else (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Turn the signals that end a run into Stopped, so that `finally` clauses and context managers do their work."""
    signals = stopping_signals()

    def on_signal(number: int, frame: FrameType | None) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)  # once: what follows is the clean-up
        raise Stopped(number)

    before = {each: signal.signal(each, on_signal) for each in signals}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore SIGINT, SIGTERM and SIGHUP, which are asking for what is being done already: the clean-up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.signal(each, signal.SIG_IGN) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


class LocalFederation:
    """Starts on entry, stops everything on exit. Logs go to `directory`/logs.

    CA, keys and enrolment tokens are made for it and thrown away with it. The task of `settings` is tried first.
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
        data: LocalData | None = None,
        data_dir: str = "",
        needed: int = 1,
        settings: Settings | None = None,
        tell: Say = lambda text: None,
    ) -> None:
        self._directory = directory
        self._data, self._data_dir = data or LocalData(), data_dir
        self._max_restarts = max_restarts
        self._say = say
        self._count = clients
        self._task = task
        self.addresses = addresses or Addresses.local()
        self._home = directory.resolve() / HOME  # Flower's own files, and all secrets
        self._insecure = insecure
        self._settings = settings
        self._tell = tell
        self._joined = -1
        self.fork_server = ForkServer(("fl_client.process", "fl_client.app", "fl_client.link.node", *PRELOAD))
        logs = directory / LOGS
        self._memory = memory_limit.MemoryKills()
        self._clients = LocalClients(
            self.start_client, logs, needed=needed, limit=max_restarts, say=say, memory=self._memory
        )
        self.superlink: SuperLink | None = None
        self._held = ExitStack()

    def __enter__(self) -> Self:
        logs = self._directory / LOGS
        logs.mkdir(parents=True, exist_ok=True)
        self._tell("starting the server")
        shutil.rmtree(self._home, ignore_errors=True)  # an earlier process was killed
        try:
            trial = Trial(self.fork_server, self._settings, logs) if self._settings is not None else None
            self.access = home_files.prepare(self._home, insecure=self._insecure)
            self._held.enter_context(alone(self._home / OWNER, str(self._directory)))
            database = self._home / "state.db"  # so that a SuperLink that falls comes back as the same
            linked = LinkDatabase(database)
            self._supervisor = Supervisor(
                linked, self._home, limit=self._max_restarts, say=self._say, memory=self._memory
            )
            self.superlink = SuperLink(
                self.fork_server,
                self.addresses,
                directory=logs,
                access=self.access,
                database=database,
                environment=self._environment(),
                launched=self._supervisor.launched,
                not_launched=self._supervisor.not_launched,
                steady=linked.steady,
            )
            self._kept = RestartedSuperLink(
                self.superlink,
                before=self._supervisor.renew,
                limit=self._max_restarts,
                say=self._say,
                memory=self._memory,
            )
            self._kept.start(wait=False)
            self._clients.begin(self._count)
            self._tell_joined()
            self.superlink.wait_until_ready()
            if trial is not None:
                trial.wait()
        except BaseException as error:
            self._stop()
            if isinstance(error, ParterreError):
                check_room(self._directory)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    @property
    def clients(self) -> list[BaseProcess]:
        """The clients' processes, in the order of their numbers."""
        return self._clients.processes

    def enrolment_token(self, number: int | None = None) -> str:
        """Return a new token. A number is the slot that its client gets, and so what events call it by."""
        labels = {} if number is None else {SLOT: str(number)}
        return home_files.enrolment_token(self.access, uses=MOST_CLIENTS, seconds=TOKEN_SECONDS, labels=labels).text

    def control(self) -> Control:
        """Return a client of its Control API."""
        return home_files.control(self.access, self.addresses.control)

    def start_client(self, number: int) -> BaseProcess:
        """Start one more client. One that is started again under a number that was there has its key again."""
        return self.fork_server.start(
            serve,
            ClientOptions(
                server=self.addresses.fleet,
                task=self._task,
                data=self._data.paths[number] if self._data.paths else "",
                label=self._data.label,
                ignore=self._data.ignore,
                data_dir=self._data_dir,
                state="" if self._insecure else str(self._home / f"client-{number}"),
                token="" if self._insecure else self.enrolment_token(number),
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
        self._tell_joined()
        self._rotate()
        return self._clients.tend()

    def _rotate(self) -> None:
        logs = [self._directory / LOGS / f"client-{number}.log" for number in range(self._count)]
        with suppress(OSError):  # it is tried again at the next turn
            rotate([*(self.superlink.logs if self.superlink else ()), *logs])

    def _tell_joined(self) -> None:
        """Tell how many clients have joined, until all have."""
        if self._joined < self._count:
            logs = [self._directory / LOGS / f"client-{number}.log" for number in range(self._count)]
            joined = sum(JOINED in path.read_text(errors="replace") for path in logs if path.exists())
            if joined != self._joined:
                self._tell(f"clients are loading: {joined}/{self._count}")
            self._joined = joined

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
        return last_words(self._directory / LOGS / f"{name}.log", lines)

    def _environment(self) -> dict[str, str]:
        return {
            "FLWR_HOME": str(self._home),
            TRUSTED: str(self._directory.resolve()),
            "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # several processes share one card
        }

    def _threads(self) -> dict[str, str]:
        """Share the cores out: more threads than cores only take turns."""
        threads = str(max(1, (os.cpu_count() or 1) // max(1, self._count)))
        return {"TF_NUM_INTRAOP_THREADS": threads, "TF_NUM_INTEROP_THREADS": threads, "OMP_NUM_THREADS": threads}

    def _stop(self) -> None:
        with uninterrupted():
            self.fork_server.stop([client for client in self.clients if client.is_alive()])
            if self.superlink is not None:
                self.superlink.stop()
            self.fork_server.stop()
            self._held.close()
            shutil.rmtree(self._home, ignore_errors=True)
