"""A server: a SuperLink that is kept up, runs that are supervised, and a pulse; from one place, until it is stopped."""

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fl_common.processes import memory_limit
from fl_common.processes.forking import ForkServer
from fl_common.processes.health_file import HealthFile
from fl_server.access.data_schemas import Schemas
from fl_server.access.home_files import Access
from fl_server.observers.health import ServerHealth
from fl_server.processes.listening import Addresses
from fl_server.processes.log_rotation import rotate
from fl_server.store.disk.server_lock import sweep
from fl_server.store.log.events_log import Event
from fl_server.store.run_directories import RunDirectories
from fl_server.superlink.database import LinkDatabase
from fl_server.superlink.execution.supervisor import LIMIT, Say, Supervisor
from fl_server.superlink.process import PRELOAD, SuperLink
from fl_server.superlink.restarts import PORT_SECONDS, RestartedSuperLink

log = logging.getLogger(__name__)

IDLE_SECONDS = 60.0


class Server:
    """Call `start` once, `tick` a few times a second, and `stop`; of one `store`, which this process has locked.

    `say` is told what was started again, and `tell` each new event of a run with the run's name.
    """

    def __init__(
        self,
        store: Path,
        addresses: Addresses,
        access: Access,
        *,
        max_restarts: int = LIMIT,
        say: Say = log.warning,
        tell: Callable[[str, Event], object] = lambda run, event: None,
    ) -> None:
        home = access.home
        self.database = LinkDatabase(home / "state.db")
        self._store, self._home, self._say = store, home, say
        self._fork_server = ForkServer(PRELOAD)
        memory = memory_limit.MemoryKills()
        self._supervisor = Supervisor(
            self.database,
            home,
            limit=max_restarts,
            say=say,
            memory=memory,
            going_on=lambda run: f"fl run --resume {run.name}",
        )
        self.superlink = SuperLink(
            self._fork_server,
            addresses,
            directory=home,
            access=access,
            database=home / "state.db",
            environment={"FLWR_HOME": str(home), "FL_STORE": str(store)},
            launched=self._supervisor.launched,
            not_launched=self._supervisor.not_launched,
            steady=self.database.steady,
        )
        self._kept = RestartedSuperLink(
            self.superlink,
            before=self._supervisor.renew,
            limit=max_restarts,
            say=say,
            memory=memory,
            meanwhile=lambda: self._vitals.tick("starting", "its SuperLink starts"),
        )
        authority = "" if access.insecure else str(access.files.ca)
        self._vitals = ServerHealth(store, HealthFile(home, address=addresses.fleet, authority=authority), tell=tell)

    def start(self, *, crashed: bool) -> None:
        """Start, and take up what an earlier server left; `crashed` says that it was killed. Raises NetworkError."""
        self._vitals.tick("starting", "its SuperLink starts")
        sweep(self._home / "temporary", self._fork_server.temporary)
        if lost := self.database.examine(began=bool(RunDirectories(self._home).numbers())):
            self._say(lost)
        Schemas(self._home).clear()
        self._supervisor.recover(crashed=crashed)
        self._kept.start(patience=PORT_SECONDS if crashed else 0.0)

    def tick(self) -> bool:
        """Start again what has ended; True where that was the SuperLink. Raises NetworkError where it keeps falling."""
        again = self._kept.tick()
        self._supervisor.tick()
        self._vitals.tick(*self._state())
        with suppress(OSError):  # it is tried again at the next turn
            rotate(self.superlink.logs)
        return again

    def _state(self) -> tuple[str, str]:
        if not self.superlink.executor.alive:
            return "down", "the thread that starts runs has ended; start the server again"
        idle = int(self.superlink.executor.idle() // IDLE_SECONDS)
        slow = f"; the thread that starts runs made its last turn {idle} min ago" if idle else ""
        return "up" if self._kept.up else "down", f"runs in {self._store}{slow}"

    def leave(self) -> None:
        """Say that it is about to stop, because it was told to."""
        self._vitals.tick("stopping", "it was told to")

    def stop(self) -> None:
        """Stop everything that it started."""
        self.superlink.stop()
        self._fork_server.stop()

    def pids(self) -> dict[str, list[int | None]]:
        """Return the numbers of its processes, by role."""
        link = [self.superlink.process.pid] if self.superlink.process else []
        return {
            "server": [os.getpid()],
            "superlink": link,
            "serverapp": [app.pid for app in self.superlink.executor.apps],
        }
