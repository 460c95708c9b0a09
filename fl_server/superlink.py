"""Flower's SuperLink, and the executor that gives it ServerApps: started, watched and stopped from one place.

The SuperLink runs in Flower's `process` isolation: it hands a token for each submitted run to an executor, ours, which
forks the ServerApp from a process that has imported TensorFlow already (Flower's own executor starts a new Python).
"""

import logging
import secrets
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import Queue

import grpc

from fl_common import private
from fl_common.errors import NetworkError, ParterreError, StoreError
from fl_common.nursery import Nursery
from fl_server import certificates
from fl_server.access import Access
from fl_server.whereabouts import HOME_VARIABLE

log = logging.getLogger(__name__)

PRELOAD = ("fl_common.lean", "flwr.server.app", "flwr.server.serverapp.app", "flwr.clientapp", "pydantic")
APP_PACKAGES = frozenset({"fl_common", "fl_client", "fl_server", "strategies"})
START_SECONDS = 180.0  # on a machine with nothing else to do it takes 2
ANY = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to
CLAIM_PAUSE = 0.05
PORTS = range(16384, 32768)  # ephemeral ports begin at 32768, or higher
RENEWAL_SECONDS = 3600.0  # how often is looked whether the certificate is due
INTERNAL = "appio"  # where the certificates of ServerAppIo lie, which only this machine's processes use


@dataclass(frozen=True)
class Addresses:
    """Where the three APIs listen, as HOST:PORT. Only Fleet is for clients."""

    fleet: str
    control: str
    appio: str

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
    host, _, port = address.rpartition(":")
    return f"localhost:{port}" if host.strip("[]") in ANY else address


def check_free(address: str, purpose: str) -> None:
    """Raise NetworkError where `address` cannot be listened on."""
    host, _, port = address.rpartition(":")
    try:
        family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host.strip("[]"), int(port)))
    except (OSError, ValueError, OverflowError) as error:
        raise NetworkError(
            f"cannot listen on {address} for {purpose}: {error}. Stop what uses it, or choose another address."
        ) from None


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
        launched: Callable[[str, BaseProcess], object] = lambda token, process: None,
    ) -> None:
        self._launched = launched
        self._nursery = nursery
        self._own = Nursery(())
        self.addresses = addresses
        self._directory = directory
        self.access = access
        self._internal = certificates.Files.inside(access.home / INTERNAL)
        self._database = database
        self._environment = {HOME_VARIABLE: str(access.home)} | (environment or {})
        self._secret = secrets.token_bytes(32)
        self._ending = threading.Event()
        self._executor: threading.Thread | None = None
        self._unanswered: float | None = None  # since when the executor asks in vain
        self.process: BaseProcess | None = None
        self.apps: list[BaseProcess] = []

    def start(self) -> None:
        """Start both, or the SuperLink again after it fell. Raises NetworkError where a port is taken."""
        check_free(self.addresses.fleet, "Fleet")
        check_free(self.addresses.control, "Control")
        check_free(self.addresses.appio, "ServerAppIo")
        secret_file = self.access.home / "executor.secret"
        private.write(secret_file, self._secret)
        self._look_at_certificates()
        self._unanswered = None
        self.process = self._own.start(
            _superlink,
            self._arguments(secret_file),
            self.access,
            name="superlink",
            log_file=self._directory / "superlink.log",
            environment=self._environment,
        )
        if self._executor is None:
            claim = claimer(self.addresses.appio, self._secret, self._root)  # here: Flower imports in one thread only
            self._executor = threading.Thread(target=self._execute, args=(claim,), name="executor", daemon=True)
            self._executor.start()
            threading.Thread(target=self._renew, name="certificates", daemon=True).start()

    def wait_until_ready(self) -> None:
        """Return when Fleet and Control accept connections."""
        limit = time.monotonic() + START_SECONDS
        for address in (self.addresses.fleet, self.addresses.control):
            while not _accepts(address):
                if not self.alive or time.monotonic() > limit:
                    raise NetworkError(f"the SuperLink did not start: {self.last_words()}")
                time.sleep(0.02)

    @property
    def alive(self) -> bool:
        """Whether the SuperLink's process runs."""
        return self.process is not None and self.process.is_alive()

    def silence(self) -> float:
        """Return for how many seconds the executor has asked the SuperLink without an answer."""
        since = self._unanswered
        return 0.0 if since is None else time.monotonic() - since

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
        if self._executor is not None:
            self._executor.join(timeout=2.0)
        if self.process is not None:
            self._own.stop(grace=3.0)
        self._nursery.stop(self.apps)

    @property
    def _root(self) -> bytes | None:
        """The CA of ServerAppIo, for the executor and the ServerApps."""
        return None if self.access.insecure else certificates.read_public(self._internal.ca)

    def _look_at_certificates(self) -> None:
        """Renew what is due, and make those of ServerAppIo. Raises SecretError where a certificate cannot be used."""
        if self.access.insecure:
            return
        files = self.access.files
        if why := certificates.renew_if_due(files, self.access.names if files.ca_key else ()):
            log.warning("the server's certificate was renewed (%s); clients notice nothing", why)
        certificates.check(files)
        if self._executor is None:
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

    def _execute(self, claim: Callable[[], str]) -> None:
        while not self._ending.wait(CLAIM_PAUSE):
            asked = time.monotonic()
            try:
                token = claim()
            except grpc.RpcError as error:
                self._unanswered = self._unanswered or asked
                if error.code() is not grpc.StatusCode.UNAVAILABLE and not self._ending.is_set():
                    log.warning("the executor cannot claim a run: %s", error.details())
                continue
            self._unanswered = None  # what follows may take long on a busy machine, and is not the SuperLink's silence
            if token:
                self._launch(token)

    def _launch(self, token: str) -> None:
        app = self._nursery.start(
            _serverapp,
            self.addresses.appio,
            token,
            self._root,
            name=f"serverapp-{len(self.apps)}",
            log_file=self._directory / "serverapp.log",
            environment=self._environment,
        )
        self.apps = [process for process in self.apps if process.is_alive()] + [app]
        try:
            self._launched(token, app)
        except StoreError as error:  # unwatched, it would never be started again
            log.warning("a ServerApp is ended, to be started again: %s", error)
            app.kill()


def claimer(appio: str, secret: bytes, root: bytes | None = None) -> Callable[[], str]:
    """Return a function that claims a pending run and returns its token, or "" where none waits."""
    from flwr.proto.appio_pb2 import ClaimTaskRequest, PullPendingTasksRequest
    from flwr.proto.serverappio_pb2_grpc import ServerAppIoStub
    from flwr.supercore.grpc import create_channel
    from flwr.supercore.interceptors import RuntimeVersionClientInterceptor, SuperExecAuthClientInterceptor
    from flwr.supercore.interceptors.superexec_auth_interceptor import SERVERAPPIO_SUPEREXEC_METHODS

    stub = ServerAppIoStub(
        create_channel(
            appio,
            insecure=root is None,
            root_certificates=root,
            interceptors=[
                RuntimeVersionClientInterceptor(component_name="SuperExec"),
                SuperExecAuthClientInterceptor(master_secret=secret, protected_methods=SERVERAPPIO_SUPEREXEC_METHODS),
            ],
        )
    )

    def claim() -> str:
        tasks = stub.PullPendingTasks(PullPendingTasksRequest(), timeout=5.0).tasks
        return str(stub.ClaimTask(ClaimTaskRequest(task_id=tasks[0].task_id), timeout=5.0).token) if tasks else ""

    return claim


def _accepts(address: str) -> bool:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        socket.create_connection((host if host not in ANY else "localhost", int(port)), timeout=0.5).close()
    except OSError:
        return False
    return True


def _superlink(arguments: list[str], access: Access) -> None:
    from flwr.server.app import run_superlink

    from fl_server import gate

    gate.install(access)
    sys.argv = arguments
    run_superlink()


def _serverapp(appio: str, token: str, root: bytes | None) -> None:
    from flwr.common.logger import mirror_output_to_queue
    from flwr.server.serverapp.app import run_serverapp

    # The run brings its own code in its bundle, which must win over what this process was forked with.
    for name in [name for name in sys.modules if name.partition(".")[0] in APP_PACKAGES]:
        del sys.modules[name]
    queue: Queue[str | None] = Queue()
    mirror_output_to_queue(queue)
    run_serverapp(appio, queue, token, insecure=root is None, certificates=root, runtime_dependency_install=False)
