"""A client as a process: settings of its command line -> ClientApp -> resident node, until it is told to stop."""

import json
import logging
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from fl_common.errors import AccessError, NetworkError, SecretError, TaskError, UnknownClient
from fl_common.network.addresses import parse
from fl_common.trust import secret_files
from fl_common.trust.keys import fingerprint
from fl_common.trust.tokens import Token

if TYPE_CHECKING:
    from fl_client.link.identity import Identity
    from fl_client.link.node import Node
    from fl_client.observers.health import Listener
    from fl_client.workplace import Workplace
    from fl_common.tasks.client_data.data_names import Schema

log = logging.getLogger(__name__)

INSECURE = (
    "--insecure: this connection is plaintext and proves nothing. Whoever is on the way reads and changes models and "
    "updates. Only for a network of your own."
)


@dataclass(frozen=True)
class ClientOptions:
    """What a client is told on its own machine. `task` and `data` win over what a server's message names.

    ignore: columns of `data` that are no features. data_dir: where a built-in task's files are. private_schema: the
    names of its columns or classes are told as hashes, salted with `schema_secret`, which the clients share and the
    server does not know, or else with the fingerprint of the server's CA.

    `state` is the directory of its key; where it is "", the first below `states` that is free. `pulse` is the directory
    of what probes read, `state` where it is "". `token` is needed until the key is enrolled.
    """

    server: str
    task: str = ""
    data: str = ""
    label: str = ""
    ignore: tuple[str, ...] = ()
    data_dir: str = ""
    private_schema: bool = False
    schema_secret: str = field(default="", repr=False)
    state: str = ""
    states: str = ""
    pulse: str = ""
    ca: str = ""
    token: str = field(default="", repr=False)
    token_file: str = ""
    insecure: bool = False
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 0

    def node_config(self) -> dict[str, bool | int | float | str]:
        """Return the options as Flower's node config; `resident` says that no code of a server is run."""
        config: dict[str, bool | int | float | str] = {"resident": True}
        given = {"task": self.task, "data": self.data, "label": self.label, "data_dir": self.data_dir}
        given |= {"ignore": json.dumps(self.ignore)} if self.ignore else {}
        return config | {key: value for key, value in given.items() if value}


def serve(options: ClientOptions) -> None:
    """Serve until SIGTERM or SIGINT: the message in hand is finished, the server is told, and the call returns.

    Data of its own are read and checked before it joins. Raises DataError or TaskError where they cannot be used,
    AccessError where the server is not the right one, or does not know this client. One that was revoked stays.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    _check(options)
    stop = _stopped_by_signals()
    if options.insecure:
        log.warning(INSECURE)
        listeners = _listeners(options, options.state)
        workplace, schema = _examined(options, stop)
        if not stop.is_set():
            _node(options, stop, None, listeners, workplace, schema).serve()
        return

    from fl_client.link.identity import open_identity
    from fl_client.link.revoked import staying
    from fl_client.sudden_end import SuddenEnd

    token = _token(options)
    identity = open_identity(options.state, options.server, options.states)
    sudden_end = SuddenEnd(identity.directory)
    log.info("client %s, key in %s", identity.client, identity.directory)
    try:
        killed = sudden_end.begin()
        listeners = _listeners(options, str(identity.directory))
        workplace, schema = _examined(options, stop)

        def session() -> None:
            _meet(options, identity, token, stop, listeners)
            if not stop.is_set():
                node = _node(options, stop, identity, listeners, workplace, schema, killed)
                _serve(node, lambda error: _enrol(options, identity, token, error))

        staying(session, stop, listeners)
    finally:
        sudden_end.end()
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
    from fl_client.link.enrolment import fetch_authority
    from fl_client.link.node import back_off
    from fl_common.network.tls_handshake import diagnose

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
    from fl_client.link.enrolment import enrol

    authority = identity.authority
    if token is None or authority is None:
        raise UnknownClient(
            f"{refused} Start it once with an enrolment token (`fl enroll token` makes one on the server), or register "
            f"{identity.public_file} there with `fl enroll key`."
        )
    log.info("enrolled as client %s", enrol(options.server, token, identity.key, authority))
    identity.note_enrolled(token.identity)


def _examined(options: ClientOptions, stop: "Stop") -> "tuple[Workplace, Schema]":
    """Return where this client will work, with its own data read and found to be good, and what these are called."""
    from fl_client.job import Home
    from fl_client.own_data import Interrupted
    from fl_client.workplace import Workplace
    from fl_common.tasks.client_data.data_names import Schema

    workplace, schema = Workplace(stop), Schema()
    with suppress(Interrupted), stop.at_once():
        schema = workplace.examine(Home.of(options.node_config()))
    return workplace, schema


def _node(
    options: ClientOptions,
    stop: threading.Event,
    identity: "Identity | None",
    listeners: "Sequence[Listener]",
    workplace: "Workplace",
    schema: "Schema",
    killed: str = "",
) -> "Node":
    from fl_client.app import make_app
    from fl_client.link.node import Node
    from fl_client.link.watched_connection import WatchedConnection

    logging.getLogger("flwr").setLevel(logging.WARNING)  # importing Flower has set it

    told = _told(options, identity, workplace, schema)

    def connect() -> WatchedConnection:
        if identity is None:
            return WatchedConnection(options.server, listeners=listeners, schema=told)
        return WatchedConnection(
            options.server,
            root_certificates=identity.authority,
            key=identity.key,
            listeners=listeners,
            schema=told,
            killed=killed,
        )

    return Node(make_app(workplace), connect, node_config=options.node_config(), stop=stop)


def _told(options: ClientOptions, identity: "Identity | None", workplace: "Workplace", schema: "Schema") -> str:
    """Return what the server is told of this client's data: their names, or only that there are some; "" for none."""
    if not (schema.columns or schema.classes):
        return schema.text() if options.data else ""
    if not options.private_schema:
        return schema.text()
    authority = identity.authority if identity is not None else None
    workplace.salt = options.schema_secret.encode() or (fingerprint(authority) if authority else "").encode()
    return schema.hashed(workplace.salt).text()


class Stop(threading.Event):
    """Set when the client is to leave: after what it has in hand, or at once while nothing is."""

    _at_once = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Have a signal end the work in this context, user's code included."""
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def heard(self, number: int) -> None:
        """Take a signal."""
        log.info("%s: leaving%s", signal.Signals(number).name, "" if self._at_once else " after the message in hand")
        self.set()
        if self._at_once:
            from fl_client.own_data import Interrupted

            raise Interrupted


def _stopped_by_signals() -> Stop:
    stop = Stop()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.heard(number)

    signal.signal(signal.SIGTERM, on_signal)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, on_signal)
    return stop


def _listeners(options: ClientOptions, state: str) -> "list[Listener]":
    """Return who is told what this client does: its pulse where it has a state directory, its metrics where wanted."""
    from fl_client.observers.health import HealthObserver

    place = options.pulse or state
    if options.pulse:
        secret_files.make_directory(Path(options.pulse))
    found: list[Listener] = [HealthObserver(Path(place), options.server)] if place else []
    if options.metrics_port:
        from fl_client.observers.prometheus import Metrics
        from fl_common.processes import metrics_endpoint

        found.append(Metrics())
        metrics_endpoint.serve(options.metrics_host, options.metrics_port)
    return found


def _check(options: ClientOptions) -> None:
    parse(options.server, "--server")
    if options.insecure and (options.token or options.token_file or options.ca):
        raise SecretError("--insecure goes with no token and no CA: a token is never sent in plaintext. Leave one out.")
    if options.task.endswith(".py") and not Path(options.task).expanduser().is_file():
        raise TaskError(f"--task {options.task} does not exist. Give the path of a Python file, or a task's name.")
    if options.data:
        from fl_common.tasks.client_data import files

        files.check(Path(options.data))


def _token(options: ClientOptions) -> Token | None:
    if options.token:
        return Token.parse(options.token)
    if options.token_file:
        return Token.parse(
            secret_files.read(Path(options.token_file), "the enrolment token").decode("ascii", "replace")
        )
    return None


def _read(path: str) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise NetworkError(f"the CA certificate {path} cannot be read: {error.strerror}") from None
