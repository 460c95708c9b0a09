"""The executor: it claims runs that wait at a SuperLink, and forks a ServerApp for each.

The SuperLink runs in Flower's `process` isolation: it hands out a token for each submitted run. ServerApps are forked
from a process that has imported TensorFlow already (Flower's own executor starts a new Python).
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import Queue
from typing import Any

import grpc

from fl_common.errors import StoreError
from fl_common.network import channels
from fl_common.processes.forking import ForkServer
from fl_common.trust.untrusted_text import clean
from fl_server.processes.repeated_warnings import Repeats
from fl_server.processes.standstill import Standstill
from fl_server.store.disk.whole_writes import of_database

log = logging.getLogger(__name__)

APP_PACKAGES = frozenset({"fl_common", "fl_client", "fl_server", "strategies"})
CHANNELS = "create_channel"  # Flower's name of what opens a grid's channel
CLAIM_PAUSE = 0.05
RECONNECT = [(f"grpc.{each}_reconnect_backoff_ms", 500) for each in ("initial", "min", "max")]

Claim = Callable[[], str]
Launched = Callable[[str, BaseProcess], object]
NotLaunched = Callable[[str, str], object]


class Executor:
    """One thread that claims and launches. ServerApps come from `fork_server`; their output goes to `log_file`.

    `launched` is told the token and the process of each, `not_launched` the token of one that cannot be started, and
    why. Nothing that goes wrong ends the thread.
    """

    def __init__(
        self,
        fork_server: ForkServer,
        appio: str,
        *,
        log_file: Path,
        environment: Mapping[str, str],
        launched: Launched,
        not_launched: NotLaunched = lambda token, why: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fork_server = fork_server
        self._appio = appio
        self._log_file = log_file
        self._environment = dict(environment)
        self._launched = launched
        self._not_launched = not_launched
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._clock = clock
        self._unanswered = Standstill(clock)
        self._repeats = Repeats(clock)
        self._ready = False
        self._turned = clock()
        self.turns = 0  # questions so far
        self._root: bytes | None = None
        self.apps: list[BaseProcess] = []

    def start(self, secret: bytes, root: bytes | None) -> None:
        """Begin, where it has not begun; with the executor's secret, and the CA of ServerAppIo where that has TLS."""
        self._ready = False
        self._unanswered.look(moved=True)  # a SuperLink that was started again is not yet silent
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

    @property
    def alive(self) -> bool:
        """Whether its thread is there, once it was started."""
        return self._thread is None or self._thread.is_alive()

    def idle(self) -> float:
        """Return for how many seconds its thread has made no turn: it may be waiting for a fork."""
        return self._clock() - self._turned if self.begun else 0.0

    def is_ready(self) -> None:
        """Take note that the SuperLink is up: from now on no answer is silence, before that a start that takes time."""
        self._ready = True

    def silence(self) -> float:
        """Return for how many seconds it has asked a SuperLink that was ready without an answer."""
        return self._unanswered.seconds

    def end(self) -> None:
        """Claim no more."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(timeout=2.0)

    def stop_apps(self) -> None:
        """Stop the ServerApps."""
        self._fork_server.stop(self.apps)

    def _execute(self, claim: Claim) -> None:
        while not self._ending.wait(CLAIM_PAUSE):
            self._turned = self._clock()
            self.turns += 1
            try:
                token = claim()
            except grpc.RpcError as error:
                self._unanswered.look(moved=not self._ready)
                if error.code() is not grpc.StatusCode.UNAVAILABLE and not self._ending.is_set():
                    self._warn(of_database(str(error.details())) or clean(error.details()))
                continue
            except Exception as error:  # noqa: BLE001
                self._warn(f"{type(error).__name__}: {error}", trace=True)
                continue
            self._ready = True
            self._unanswered.look(moved=True)
            if token:
                self._try_to_launch(token)
                self._unanswered.look(moved=True)  # a fork may take long on a busy machine, and is nobody's silence

    def _warn(self, why: str, *, trace: bool = False) -> None:
        """Say why it cannot claim: it tries again twenty times a second, and says so once a minute."""
        if not self._repeats.are(why):
            log.warning("the executor cannot claim a run: %s", why, exc_info=trace)

    def _try_to_launch(self, token: str) -> None:
        """Launch, or say why not: a fork fails where memory or process numbers run out, and that passes."""
        try:
            self.launch(token)
        except Exception as error:
            log.exception("a ServerApp could not be started")
            self._not_launched(token, f"its process could not be started ({type(error).__name__}: {error})")

    def launch(self, token: str) -> None:
        """Start a ServerApp for the run that a token is for."""
        app = self._fork_server.start(
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
    from flwr.supercore.interceptors import RuntimeVersionClientInterceptor, SuperExecAuthClientInterceptor
    from flwr.supercore.interceptors.superexec_auth_interceptor import SERVERAPPIO_SUPEREXEC_METHODS

    stub = ServerAppIoStub(
        grpc.intercept_channel(
            channels.lasting(appio, root, RECONNECT),
            RuntimeVersionClientInterceptor(component_name="SuperExec"),
            SuperExecAuthClientInterceptor(master_secret=secret, protected_methods=SERVERAPPIO_SUPEREXEC_METHODS),
        )
    )

    def claim() -> str:
        tasks = stub.PullPendingTasks(PullPendingTasksRequest(), timeout=5.0).tasks
        return str(stub.ClaimTask(ClaimTaskRequest(task_id=tasks[0].task_id), timeout=5.0).token) if tasks else ""

    return claim


def _use_lasting_channels(grid: Any) -> None:
    """Have the module of Flower's grid connect as we do: its own channels try again after up to two minutes."""

    def create(
        server_address: str, insecure: bool, root_certificates: bytes | None, interceptors: Sequence[Any]
    ) -> grpc.Channel:
        return grpc.intercept_channel(
            channels.lasting(server_address, None if insecure else root_certificates), *interceptors
        )

    if not hasattr(grid, CHANNELS):
        raise StoreError(f"{grid.__name__} has no {CHANNELS}: this is another release of Flower than Parterre is for.")
    setattr(grid, CHANNELS, create)


def _serverapp(appio: str, token: str, root: bytes | None) -> None:
    from flwr.common.logger import mirror_output_to_queue
    from flwr.server.serverapp import app
    from flwr.superlink.grid import grpc_grid

    from fl_common.processes import heap
    from fl_server.superlink.execution import app_installation

    heap.give_large_blocks_back()
    app_installation.use(app)
    _use_lasting_channels(grpc_grid)
    # The run brings its own code in its bundle, which must win over what this process was forked with.
    for name in [name for name in sys.modules if name.partition(".")[0] in APP_PACKAGES]:
        del sys.modules[name]
    queue: Queue[str | None] = Queue()
    mirror_output_to_queue(queue)
    app.run_serverapp(appio, queue, token, insecure=root is None, certificates=root, runtime_dependency_install=False)
