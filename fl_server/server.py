"""A server: a SuperLink that is kept up, runs that are supervised, and a pulse; from one place, until it is stopped."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

from fl_common.nursery import Nursery
from fl_common.pulse import PulseFile
from fl_server.access import Access
from fl_server.addresses import Addresses
from fl_server.events import Event
from fl_server.kept_up import PORT_SECONDS, KeptUp
from fl_server.link_database import LinkDatabase
from fl_server.superlink import PRELOAD, SuperLink
from fl_server.supervisor import LIMIT, Say, Supervisor
from fl_server.tenancy import sweep
from fl_server.vitals import Vitals

log = logging.getLogger(__name__)


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
        self._store, self._home = store, home
        self._nursery = Nursery(PRELOAD)
        self._supervisor = Supervisor(self.database, home, limit=max_restarts, say=say)
        self.superlink = SuperLink(
            self._nursery,
            addresses,
            directory=home,
            access=access,
            database=home / "state.db",
            environment={"FLWR_HOME": str(home), "FL_STORE": str(store)},
            launched=self._supervisor.launched,
        )
        self._kept = KeptUp(self.superlink, before=self._supervisor.renew, limit=max_restarts, say=say)
        authority = "" if access.insecure else str(access.files.ca)
        self._vitals = Vitals(store, PulseFile(home, address=addresses.fleet, authority=authority), tell=tell)

    def start(self, *, crashed: bool) -> None:
        """Start, and take up what an earlier server left; `crashed` says that it was killed. Raises NetworkError."""
        self._vitals.tick("starting", "its SuperLink starts")
        sweep(self._home / "temporary", self._nursery.temporary)
        self._supervisor.recover()
        self._kept.start(patience=PORT_SECONDS if crashed else 0.0)

    def tick(self) -> bool:
        """Start again what has ended; True where that was the SuperLink. Raises NetworkError where it keeps falling."""
        again = self._kept.tick()
        self._supervisor.tick()
        self._vitals.tick("up" if self._kept.up else "down", f"runs in {self._store}")
        return again

    def leave(self) -> None:
        """Say that it is about to stop, because it was told to."""
        self._vitals.tick("stopping", "it was told to")

    def stop(self) -> None:
        """Stop everything that it started."""
        self.superlink.stop()
        self._nursery.stop()

    def pids(self) -> dict[str, list[int | None]]:
        """Return the numbers of its processes, by role."""
        link = [self.superlink.process.pid] if self.superlink.process else []
        return {
            "server": [os.getpid()],
            "superlink": link,
            "serverapp": [app.pid for app in self.superlink.executor.apps],
        }
