"""Flower's SuperLink as a child process: started, watched and stopped from one place, with its executor."""

import logging
import secrets
import shutil
import sys
import threading
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

from fl_common import private
from fl_common.errors import NetworkError, ParterreError
from fl_common.nursery import Nursery
from fl_server import certificates
from fl_server.access import Access
from fl_server.addresses import Addresses, accepts, check_free
from fl_server.executor import Executor, Launched
from fl_server.whereabouts import HOME_VARIABLE

log = logging.getLogger(__name__)

PRELOAD = ("fl_common.lean", "flwr.server.app", "flwr.server.serverapp.app", "flwr.clientapp", "pydantic")
START_SECONDS = 180.0  # on a machine with nothing else to do it takes 2
RENEWAL_SECONDS = 3600.0  # how often is looked whether the certificate is due
INTERNAL = "appio"  # where the certificates of ServerAppIo lie, which only this machine's processes use


class SuperLink:
    """One SuperLink and its executor, as children of this process. Logs go to `directory`, secrets to `access.home`.

    ServerApps come from `nursery`. The SuperLink itself needs no TensorFlow, so it starts while that is imported.
    """

    def __init__(
        self,
        nursery: Nursery,
        addresses: Addresses,
        *,
        directory: Path,
        access: Access,
        database: Path | None = None,
        environment: dict[str, str] | None = None,
        launched: Launched = lambda token, process: None,
    ) -> None:
        self._own = Nursery(())
        self.addresses = addresses
        self._directory = directory
        self.access = access
        self._internal = certificates.Files.inside(access.home / INTERNAL)
        self._database = database
        self._environment = {HOME_VARIABLE: str(access.home)} | (environment or {})
        self._secret = secrets.token_bytes(32)
        self._ending = threading.Event()
        self.process: BaseProcess | None = None
        self.executor = Executor(
            nursery,
            addresses.appio,
            log_file=directory / "serverapp.log",
            environment=self._environment,
            launched=launched,
        )

    def start(self) -> None:
        """Start both, or the SuperLink again after it fell. Raises NetworkError where a port is taken."""
        check_free(self.addresses.fleet, "Fleet")
        check_free(self.addresses.control, "Control")
        check_free(self.addresses.appio, "ServerAppIo")
        secret_file = self.access.home / "executor.secret"
        private.write(secret_file, self._secret)
        self._look_at_certificates()
        self.process = self._own.start(
            _superlink,
            self._arguments(secret_file),
            self.access,
            name="superlink",
            log_file=self._directory / "superlink.log",
            environment=self._environment,
        )
        if not self.executor.begun:
            threading.Thread(target=self._renew, name="certificates", daemon=True).start()
        self.executor.start(self._secret, self.root)

    def wait_until_ready(self) -> None:
        """Return when Fleet and Control accept connections."""
        limit = time.monotonic() + START_SECONDS
        for address in (self.addresses.fleet, self.addresses.control):
            while not accepts(address):
                if not self.alive or time.monotonic() > limit:
                    raise NetworkError(f"the SuperLink did not start: {self.last_words()}")
                time.sleep(0.02)

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
        if why := certificates.renew_if_due(files, self.access.names if files.ca_key else ()):
            log.warning("the server's certificate was renewed (%s); clients notice nothing", why)
        certificates.check(files)
        if not self.executor.begun:
            shutil.rmtree(self.access.home / INTERNAL, ignore_errors=True)
            certificates.init(self.access.home / INTERNAL, certificates.LOCAL_NAMES, days=certificates.CA_DAYS)

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


def _superlink(arguments: list[str], access: Access) -> None:
    from flwr.server.app import run_superlink

    from fl_server import gate

    gate.install(access)
    sys.argv = arguments
    run_superlink()
