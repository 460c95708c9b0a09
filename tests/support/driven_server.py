"""A real SuperLink in a child process whose runs are driven by the test itself, as a ServerApp would drive them."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from flwr.common.serde import run_from_proto
from flwr.proto.appio_pb2 import PullTaskInputRequest
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_grpc
from flwr.superlink.grid import GrpcGrid

from fl_client.link.connection import Connection
from fl_client.link.node import App, Node
from fl_common.errors import AccessError
from fl_common.processes.forking import ForkServer
from fl_common.settings.schema import Settings
from fl_server.access import home_files
from fl_server.processes.listening import Addresses
from fl_server.superlink.process import SuperLink

PATIENCE = 90.0


class Server:
    """A SuperLink with a database, so that it can fall and come back as the same."""

    def __init__(
        self, directory: Path, *, insecure: bool = True, addresses: Addresses | None = None, **entry: Any
    ) -> None:
        self.directory = directory
        self.addresses = addresses or Addresses.local()
        # Importing Flower takes seconds: the children are forked from a helper that has done so.
        self.fork_server = ForkServer(("flwr.server.app",))
        environment = {"FLWR_HOME": str(directory), "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
        database = directory / "state.db"
        self.superlink = SuperLink(
            self.fork_server,
            self.addresses,
            directory=directory,
            access=home_files.prepare(directory, insecure=insecure, **entry),
            database=database,
            environment=environment,
        )
        self.tokens: Queue[str] = Queue()
        self.superlink.executor.launch = self.tokens.put  # to the test, in place of starting a ServerApp
        self._alive: HeartbeatSender | None = None

    def start(self) -> None:
        self.superlink.start()
        self.superlink.wait_until_ready()

    def kill(self) -> None:
        self.superlink.process.kill()
        self.superlink.process.join()

    def forget(self) -> None:
        """Lose the database, while the SuperLink is down; the run that was driven is lost with it."""
        self._give_up()
        for path in self.directory.glob("state.db*"):
            path.unlink()

    def stop(self) -> None:
        self._give_up()
        self.superlink.stop()
        self.fork_server.stop()

    def grid(self, settings: Settings | None = None) -> GrpcGrid:
        """Submit a run and return the Grid of its ServerApp, which is this process."""
        with home_files.control(self.superlink.access, self.addresses.control) as control:
            control.submit(settings or Settings())
        root = self.superlink.root
        token = self.tokens.get(timeout=PATIENCE)
        grid = GrpcGrid(self.addresses.appio, insecure=root is None, root_certificates=root, token=token)
        grid.set_run(run_from_proto(grid._stub.PullTaskInput(PullTaskInputRequest()).run))
        # Without it the SuperLink gives the run up after a minute, and Flower's grid then interrupts this process.
        self._alive = HeartbeatSender(make_task_heartbeat_fn_grpc(grid._stub))
        self._alive.start()
        return grid

    def _give_up(self) -> None:
        if self._alive is not None and self._alive.is_running:
            self._alive.stop()


def server_for_a_module(make: Callable[[Path], Server]) -> Any:
    """A fixture: one server for all tests of a file."""

    @pytest.fixture(scope="module", name="server")
    def fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
        server = make(tmp_path_factory.mktemp("superlink"))
        try:
            server.start()
            yield server
        finally:
            server.stop()

    return fixture


def grid_for_a_module(settings: Settings | None = None) -> Any:
    """A fixture: the Grid of one run on that server."""

    @pytest.fixture(scope="module", name="grid")
    def fixture(server: Server) -> Iterator[GrpcGrid]:
        grid = server.grid(settings)
        yield grid
        grid.close()

    return fixture


@contextmanager
def serving(
    connect: Callable[[], Connection], app: App, *, stop: threading.Event | None = None, **options: Any
) -> Iterator[list[AccessError]]:
    """A node in a thread of this process, stopped at the end. Yields the list of what ended it before."""
    stop, ended = stop or threading.Event(), []
    node = Node(app, connect, stop=stop, **{"node_config": {}} | options)

    def run() -> None:
        try:
            node.serve()
        except AccessError as error:
            ended.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield ended
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


def until(condition, seconds: float = PATIENCE):
    """Wait for something that other processes do; return what it gave."""
    limit = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(0.02)
    return found
