"""A client as a process: settings of its command line -> ClientApp -> resident node, until it is told to stop."""

import logging
import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from fl_common.errors import DataError, NetworkError, TaskError

if TYPE_CHECKING:
    from fl_client.vitals import Listener

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClientOptions:
    """What a client is told on its own machine. `task` and `data` win over what a server's message names."""

    server: str
    task: str = ""
    data: str = ""
    label: str = ""
    root_certificates: str = ""
    state: str = ""
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 0

    def node_config(self) -> dict[str, bool | int | float | str]:
        """Return the options as Flower's node config; `resident` says that no code of a server is run."""
        config: dict[str, bool | int | float | str] = {"resident": True}
        given = {"task": self.task, "data": self.data, "label": self.label}
        return config | {key: value for key, value in given.items() if value}


def serve(options: ClientOptions) -> None:
    """Serve until SIGTERM or SIGINT: the message in hand is finished, the server is told, and the call returns."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("flwr").setLevel(logging.WARNING)
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    certificates = _read_certificates(options.root_certificates)
    _check(options)
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        log.info("%s: leaving after the message in hand", signal.Signals(number).name)
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, on_signal)

    from fl_client.app import Workplace, make_app
    from fl_client.node import Node
    from fl_client.vitals import WatchedConnection

    listeners = _listeners(options)
    node = Node(
        make_app(Workplace()),
        lambda: WatchedConnection(options.server, root_certificates=certificates, listeners=listeners),
        node_config=options.node_config(),
        stop=stop,
    )
    node.serve()


def _listeners(options: ClientOptions) -> "list[Listener]":
    """Return who is told what this client does: its pulse where it has a state directory, its metrics where wanted."""
    from fl_client.vitals import Pulse

    found: list[Listener] = [Pulse(Path(options.state), options.server)] if options.state else []
    if options.metrics_port:
        from fl_client.metrics import Metrics
        from fl_common import exposition

        found.append(Metrics())
        exposition.serve(options.metrics_host, options.metrics_port)
    return found


def _check(options: ClientOptions) -> None:
    host, colon, port = options.server.rpartition(":")
    if not (host and colon and port.isdigit()):
        raise NetworkError(f"--server takes HOST:PORT, such as 127.0.0.1:9092; got {options.server!r}")
    if options.task.endswith(".py") and not Path(options.task).expanduser().is_file():
        raise TaskError(f"--task {options.task} does not exist. Give the path of a Python file, or a task's name.")
    if options.data and not Path(options.data).exists():
        raise DataError(
            f"--data {options.data} does not exist. Give an npz, csv or parquet file, or a folder of images."
        )


def _read_certificates(path: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise NetworkError(f"the root certificate {path} cannot be read: {error.strerror}") from None
