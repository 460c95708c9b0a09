"""Flower's SuperLink as a child process: started, watched and stopped from one place, with its executor."""

import logging
import secrets
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

from fl_common.errors import NetworkError, ParterreError
from fl_common.processes.forking import ForkServer
from fl_common.trust import secret_files
from fl_server.access import certificates, own_certificates
from fl_server.access.home_files import Access
from fl_server.processes.listening import Addresses, accepts, check_free
from fl_server.processes.standstill import Standstill, work_of
from fl_server.processes.steady_clock import Steady
from fl_server.store.disk.whole_writes import check_room
from fl_server.store.run_directories import HOME_VARIABLE
from fl_server.superlink.execution.executor import Executor, Launched, NotLaunched

log = logging.getLogger(__name__)

PRELOAD = ("fl_common.models.frameworks", "flwr.server.app", "flwr.server.serverapp.app", "flwr.clientapp", "pydantic")
STILL_SECONDS = 180.0  # that a start may make no progress at all
START_WORK_SECONDS = 300.0  # of processor time: a start needs 3
RENEWAL_SECONDS = 3600.0  # how often is looked whether the certificate is due
INTERNAL = "appio"  # where the certificates of ServerAppIo lie, which only this machine's processes use


class SuperLink:
    """One SuperLink and its executor, as children of this process. Logs go to `directory`, secrets to `access.home`.

    ServerApps come from `fork_server`. The SuperLink itself needs no TensorFlow, so it starts while that is imported.
    """

    def __init__(
        self,
        fork_server: ForkServer,
        addresses: Addresses,
        *,
        directory: Path,
        access: Access,
        database: Path | None = None,
        environment: dict[str, str] | None = None,
        launched: Launched = lambda token, process: None,
        not_launched: NotLaunched = lambda token, why: None,
        steady: Callable[[], Steady] = Steady.after,
    ) -> None:
        self._own = ForkServer(())
        self.addresses = addresses
        self._directory = directory
        self.access = access
        self._internal = certificates.Files.inside(access.home / INTERNAL)
        self._database = database
        self._steady = steady
        self._environment = {HOME_VARIABLE: str(access.home)} | (environment or {})
        self._secret = secrets.token_bytes(32)
        self._ending = threading.Event()
        self.logs = (directory / "superlink.log", directory / "serverapp.log")
        self.process: BaseProcess | None = None
        self.executor = Executor(
            fork_server,
            addresses.appio,
            log_file=directory / "serverapp.log",
            environment=self._environment,
            launched=launched,
            not_launched=not_launched,
        )

    def start(self) -> None:
        """Start both, or the SuperLink again after it fell. Raises NetworkError where a port is taken."""
        check_free(self.addresses.fleet, "Fleet")
        check_free(self.addresses.control, "Control")
        check_free(self.addresses.appio, "ServerAppIo")
        secret_file = self.access.home / "executor.secret"
        secret_files.write(secret_file, self._secret)
        self._look_at_certificates()
        self.process = self._own.start(
            _superlink,
            self._arguments(secret_file),
            self.access,
            self._database,
            self._steady(),
            name="superlink",
            log_file=self._directory / "superlink.log",
            environment=self._environment,
        )
        if not self.executor.begun:
            threading.Thread(target=self._renew, name="certificates", daemon=True).start()
        self.executor.start(self._secret, self.root)

    def wait_until_ready(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Return when its three APIs accept connections, however long that takes while it works; call `meanwhile`.

        Raises NetworkError where it ended, or makes no progress any more.
        """
        still, before = Standstill(), 0.0
        for address in (self.addresses.fleet, self.addresses.control, self.addresses.appio):
            while not accepts(address):
                work = self.work()
                standing = still.look(moved=work > before) > STILL_SECONDS
                before = work
                meanwhile()
                if not self.alive or standing or work > START_WORK_SECONDS:
                    check_room(self._directory)
                    raise NetworkError(f"the SuperLink did not start: {self.last_words()}")
                time.sleep(0.02)
        self.executor.is_ready()

    def work(self) -> float:
        """Return the seconds of processor time that its process has used."""
        return work_of(self.process.pid) if self.process is not None else 0.0

    @property
    def alive(self) -> bool:
        """Whether the SuperLink's process runs."""
        return self.process is not None and self.process.is_alive()

    def kill(self) -> None:
        """End the SuperLink's process at once, as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.join()

    def last_words(self) -> str:
        """Return the end of the SuperLink's log, for an error message."""
        path = self._directory / "superlink.log"
        lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
        return " | ".join(lines[-3:]) or "it left no log"

    def stop(self) -> None:
        """Stop the SuperLink, then its ServerApps: they cannot tell it that their runs have ended, for these go on."""
        self._ending.set()
        self.executor.end()
        if self.process is not None:
            self._own.stop(grace=3.0)
        self.executor.stop_apps()

    @property
    def root(self) -> bytes | None:
        """The CA of ServerAppIo, for the executor and the ServerApps; None without TLS."""
        return None if self.access.insecure else certificates.read_public(self._internal.ca)

    def _look_at_certificates(self) -> None:
        """Renew what is due, and make those of ServerAppIo. Raises SecretError where a certificate cannot be used."""
        if self.access.insecure:
            return
        files = self.access.files
        if files.ca_key is not None:
            own_certificates.renew(files, self.access.names)
        certificates.check(files)
        if not self.executor.begun:
            internal = self.access.home / INTERNAL
            own_certificates.init(internal, certificates.LOCAL_NAMES, days=own_certificates.CA_DAYS, new_ca=True)

    def _renew(self) -> None:
        while not self._ending.wait(RENEWAL_SECONDS):
            try:
                self._look_at_certificates()
            except ParterreError as error:
                log.error("the server's certificate cannot be renewed: %s", error)

    def _arguments(self, secret_file: Path) -> list[str]:
        return [
            "flower-superlink",
            *self._tls_arguments(),
            "--isolation=process",
            f"--fleet-api-address={self.addresses.fleet}",
            f"--control-api-address={self.addresses.control}",
            f"--serverappio-api-address={self.addresses.appio}",
            f"--superexec-auth-secret-file={secret_file}",
            "--disable-runtime-dependency-installation",
            *([f"--database={self._database}"] if self._database else []),
        ]

    def _tls_arguments(self) -> list[str]:
        if self.access.insecure:
            return ["--insecure"]
        files, internal = self.access.files, self._internal
        return [
            "--enable-supernode-auth",
            f"--ssl-ca-certfile={files.ca}",
            f"--ssl-certfile={files.certificate}",
            f"--ssl-keyfile={files.key}",
            f"--appio-ssl-ca-certfile={internal.ca}",
            f"--appio-ssl-certfile={internal.certificate}",
            f"--appio-ssl-keyfile={internal.key}",
        ]


def _superlink(arguments: list[str], access: Access, database: Path | None, steady: Steady) -> None:
    from flwr.server.app import run_superlink

    from fl_common.processes import heap
    from fl_server.processes import repeated_warnings
    from fl_server.superlink.fleet import patches

    heap.give_large_blocks_back()
    patches.install(access, database, steady)
    repeated_warnings.thin_out()
    sys.argv = arguments
    run_superlink()
