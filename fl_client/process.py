"""A client as a process: settings of its command line -> ClientApp -> resident node, until it is told to stop."""

import logging
import os
import random
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from fl_common import private
from fl_common.errors import AccessError, DataError, NetworkError, SecretError, TaskError, UnknownClient
from fl_common.tokens import Token

if TYPE_CHECKING:
    from fl_client.identity import Identity
    from fl_client.node import Node
    from fl_client.vitals import Listener

log = logging.getLogger(__name__)

INSECURE = (
    "--insecure: this connection is plaintext and proves nothing. Whoever is on the way reads and changes models and "
    "updates. Only for a network of your own."
)


@dataclass(frozen=True)
class ClientOptions:
    """What a client is told on its own machine. `task` and `data` win over what a server's message names.

    `state` is the directory of its key, chosen where it is "". `token` is needed until the key is enrolled.
    """

    server: str
    task: str = ""
    data: str = ""
    label: str = ""
    state: str = ""
    ca: str = ""
    token: str = field(default="", repr=False)
    token_file: str = ""
    insecure: bool = False
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 0

    def node_config(self) -> dict[str, bool | int | float | str]:
        """Return the options as Flower's node config; `resident` says that no code of a server is run."""
        config: dict[str, bool | int | float | str] = {"resident": True}
        given = {"task": self.task, "data": self.data, "label": self.label}
        return config | {key: value for key, value in given.items() if value}


def serve(options: ClientOptions) -> None:
    """Serve until SIGTERM or SIGINT: the message in hand is finished, the server is told, and the call returns.

    Raises AccessError where the server is not the right one, or does not let this client in.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    _check(options)
    stop = _stopped_by_signals()
    if options.insecure:
        log.warning(INSECURE)
        _node(options, stop, None, _listeners(options, options.state)).serve()
        return

    from fl_client.identity import open_identity

    token = _token(options)
    identity = open_identity(options.state, options.server)
    log.info("client %s, key in %s", identity.client, identity.directory)
    try:
        listeners = _listeners(options, str(identity.directory))
        _meet(options, identity, token, stop, listeners)
        node = None if stop.is_set() else _node(options, stop, identity, listeners)
        if node is not None:
            _serve(node, lambda error: _enrol(options, identity, token, error))
    finally:
        identity.close()


def _serve(node: "Node", enrol: Callable[[UnknownClient], None]) -> None:
    try:
        node.serve()
    except UnknownClient as error:  # the server has lost its registry, or is another one at the same address
        enrol(error)
        node.serve()


def _meet(
    options: ClientOptions,
    identity: "Identity",
    token: Token | None,
    stop: threading.Event,
    listeners: "Sequence[Listener]",
) -> None:
    """Learn whom to trust, and enrol where this has not happened yet. Waits for a server that is not there yet."""
    from fl_client.enrolment import diagnose, fetch_authority
    from fl_client.node import back_off

    attempt, rng = 0, random.Random()  # noqa: S311 - jitter only
    if options.ca:
        identity.trust(_read(options.ca))
    while not stop.is_set():
        try:
            if token is not None and not options.ca and not identity.trusts(token.fingerprint):
                identity.trust(fetch_authority(options.server, token.fingerprint))
            if identity.authority is None:
                raise AccessError(
                    f"this client does not know the server at {options.server} yet. Give it an enrolment token "
                    "(FL_ENROLL_TOKEN or --token-file; `fl enroll token` makes one on the server), or the server's CA "
                    "certificate with --ca."
                )
            if problem := diagnose(options.server, identity.authority):
                raise AccessError(problem)
            if token is not None and not identity.enrolled_with(token.identity):
                _enrol(options, identity, token, None)
            return
        except AccessError:
            raise
        except NetworkError as error:
            wait = back_off(attempt, rng=rng)
            attempt += 1
            log.warning("%s; trying again in %.1f s", error, wait)
            for listener in listeners:
                listener.lost(str(error))
            stop.wait(wait)


def _enrol(options: ClientOptions, identity: "Identity", token: Token | None, refused: UnknownClient | None) -> None:
    from fl_client.enrolment import enrol

    authority = identity.authority
    if token is None or authority is None:
        raise UnknownClient(
            f"{refused} Start it once with an enrolment token (`fl enroll token` makes one on the server), or register "
            f"{identity.public_file} there with `fl enroll key`."
        )
    log.info("enrolled as client %s", enrol(options.server, token, identity.key, authority))
    identity.note_enrolled(token.identity)


def _node(
    options: ClientOptions, stop: threading.Event, identity: "Identity | None", listeners: "Sequence[Listener]"
) -> "Node":
    from fl_client.app import Workplace, make_app
    from fl_client.node import Node
    from fl_client.watched import WatchedConnection

    logging.getLogger("flwr").setLevel(logging.WARNING)  # importing Flower has set it

    def connect() -> WatchedConnection:
        if identity is None:
            return WatchedConnection(options.server, listeners=listeners)
        return WatchedConnection(
            options.server, root_certificates=identity.authority, key=identity.key, listeners=listeners
        )

    return Node(make_app(Workplace()), connect, node_config=options.node_config(), stop=stop)


def _stopped_by_signals() -> threading.Event:
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        log.info("%s: leaving after the message in hand", signal.Signals(number).name)
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, on_signal)
    return stop


def _listeners(options: ClientOptions, state: str) -> "list[Listener]":
    """Return who is told what this client does: its pulse where it has a state directory, its metrics where wanted."""
    from fl_client.vitals import Pulse

    found: list[Listener] = [Pulse(Path(state), options.server)] if state else []
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
    if options.insecure and (options.token or options.token_file or options.ca):
        raise SecretError("--insecure goes with no token and no CA: a token is never sent in plaintext. Leave one out.")
    if options.task.endswith(".py") and not Path(options.task).expanduser().is_file():
        raise TaskError(f"--task {options.task} does not exist. Give the path of a Python file, or a task's name.")
    if options.data and not Path(options.data).exists():
        raise DataError(
            f"--data {options.data} does not exist. Give an npz, csv or parquet file, or a folder of images."
        )


def _token(options: ClientOptions) -> Token | None:
    if options.token:
        return Token.parse(options.token)
    if options.token_file:
        return Token.parse(private.read(Path(options.token_file), "the enrolment token").decode("ascii", "replace"))
    return None


def _read(path: str) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise NetworkError(f"the CA certificate {path} cannot be read: {error.strerror}") from None
