"""The executor: it claims runs that wait at a SuperLink, and forks a ServerApp for each.

The SuperLink runs in Flower's `process` isolation: it hands out a token for each submitted run. ServerApps are forked
from a process that has imported TensorFlow already (Flower's own executor starts a new Python).
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import Queue

import grpc

from fl_common.errors import StoreError
from fl_common.nursery import Nursery

log = logging.getLogger(__name__)

APP_PACKAGES = frozenset({"fl_common", "fl_client", "fl_server", "strategies"})
CLAIM_PAUSE = 0.05

Claim = Callable[[], str]
Launched = Callable[[str, BaseProcess], object]


class Executor:
    """One thread that claims and launches. ServerApps come from `nursery`; their output goes to `log_file`.

    `launched` is told the token and the process of each.
    """

    def __init__(
        self, nursery: Nursery, appio: str, *, log_file: Path, environment: Mapping[str, str], launched: Launched
    ) -> None:
        self._nursery = nursery
        self._appio = appio
        self._log_file = log_file
        self._environment = dict(environment)
        self._launched = launched
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._unanswered: float | None = None  # since when it asks in vain
        self._root: bytes | None = None
        self.apps: list[BaseProcess] = []

    def start(self, secret: bytes, root: bytes | None) -> None:
        """Begin, where it has not begun; with the executor's secret, and the CA of ServerAppIo where that has TLS."""
        self._unanswered = None  # a SuperLink that was started again is not yet silent
        if self._thread is not None:
            return
        self._root = root
        claim = claimer(self._appio, secret, root)  # here: Flower imports in one thread only
        self._thread = threading.Thread(target=self._execute, args=(claim,), name="executor", daemon=True)
        self._thread.start()

    @property
    def begun(self) -> bool:
        """Whether it was started."""
        return self._thread is not None

    def silence(self) -> float:
        """Return for how many seconds it has asked the SuperLink without an answer."""
        since = self._unanswered
        return 0.0 if since is None else time.monotonic() - since

    def end(self) -> None:
        """Claim no more."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(timeout=2.0)

    def stop_apps(self) -> None:
        """Stop the ServerApps."""
        self._nursery.stop(self.apps)

    def _execute(self, claim: Claim) -> None:
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
                self.launch(token)

    def launch(self, token: str) -> None:
        """Start a ServerApp for the run that a token is for."""
        app = self._nursery.start(
            _serverapp,
            self._appio,
            token,
            self._root,
            name=f"serverapp-{len(self.apps)}",
            log_file=self._log_file,
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


def _serverapp(appio: str, token: str, root: bytes | None) -> None:
    from flwr.common.logger import mirror_output_to_queue
    from flwr.server.serverapp.app import run_serverapp

    # The run brings its own code in its bundle, which must win over what this process was forked with.
    for name in [name for name in sys.modules if name.partition(".")[0] in APP_PACKAGES]:
        del sys.modules[name]
    queue: Queue[str | None] = Queue()
    mirror_output_to_queue(queue)
    run_serverapp(appio, queue, token, insecure=root is None, certificates=root, runtime_dependency_install=False)
