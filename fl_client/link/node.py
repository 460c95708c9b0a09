"""The resident node: one long-lived process that serves a ClientApp over Flower's gRPC Fleet API.

TensorFlow is imported once, the model is traced once, the data are read once. It runs only code of its own image: a
bundle that a server pushes is never fetched. It reconnects for ever, with back-off and jitter.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import grpc
from flwr.app import Context, Message, RecordDict

from fl_client.failure import failed
from fl_client.link.connection import Connection, Unwanted, raise_if_refused
from fl_client.link.enrolment import is_no_fleet
from fl_common.errors import AccessError
from fl_common.trust.untrusted_text import clean

log = logging.getLogger(__name__)

# The server answered, and what it said will not change by asking again: the run is over, or the objects are gone.
REFUSALS = (
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ABORTED,
)

STEADY_SECONDS = 2.0  # a session that was shorter does not count as one: the pauses go on growing
LEAVE_SECONDS = 3.0  # how long a leaving node waits for its last reply to be taken

App = Callable[[Message, Context], Message]


@dataclass(frozen=True)
class Pace:
    """How often an idle node polls: after t seconds without a message it waits `share` * t, within the two bounds.

    So a waiting node adds at most `share` to any wait, and a node that has been idle for a while costs next to nothing.
    A server of many nodes wants them further apart: then at least a `hurry`-th of that, and at most all of it.
    """

    share: float = 0.05
    shortest: float = 0.01
    longest: float = 1.0
    hurry: float = 10.0

    def pause(self, idle: float, wanted: float = 0.0) -> float:
        """Return seconds to wait after `idle` seconds without a message, or as the server wants (`wanted`)."""
        shortest, longest = max(self.shortest, wanted / self.hurry), max(self.longest, wanted)
        return min(max(self.share * idle, shortest), longest)


def back_off(attempt: int, *, rng: random.Random, first: float = 0.2, longest: float = 30.0) -> float:
    """Return seconds to wait before reconnection `attempt` (from 0): exponential, with full jitter above half."""
    return float(min(longest, first * 2 ** min(attempt, 20)) * rng.uniform(0.5, 1.0))


class Node:
    """Serves `app` until `stop` is set. `connect` makes a new Connection; the node leaves politely when it ends."""

    def __init__(
        self,
        app: App,
        connect: Callable[[], Connection],
        *,
        node_config: Mapping[str, bool | int | float | str],
        stop: threading.Event,
        pace: Pace | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._app = app
        self._connect = connect
        self._node_config = dict(node_config)
        self._stop = stop
        self._pace = pace or Pace()
        self._rng = rng or random.Random()  # noqa: S311 - jitter only
        self._contexts: dict[int, Context] = {}

    def serve(self) -> None:
        """Stay connected and answer messages until told to stop. Raises AccessError where the server shuts it out."""
        with self._connect() as connection:
            attempt, joined = 0, False
            while not self._stop.is_set():
                began, why = time.monotonic(), "it ended the session"
                try:
                    log.info("joined as node %d", connection.join())
                    joined = True
                    self._serve_session(connection)
                except grpc.RpcError as error:
                    raise_if_refused(error)
                    if is_no_fleet(error) and not joined:
                        raise AccessError(connection.is_another) from None
                    why = connection.diagnosis() or _describe(error)
                if not self._stop.is_set():
                    attempt = 0 if time.monotonic() - began > STEADY_SECONDS else attempt  # however it ends sessions
                    wait = back_off(attempt, rng=self._rng)
                    attempt += 1
                    log.warning("no connection to the server (%s); trying again in %.1f s", why, wait)
                    self._stop.wait(wait)
            self._leave(connection)

    def _serve_session(self, connection: Connection) -> None:
        """Answer messages until told to stop, until the connection fails, or until the server forgets this node."""
        forgotten = threading.Event()
        ended = threading.Event()
        beats = threading.Thread(target=self._beat, args=(connection, forgotten, ended), daemon=True)
        beats.start()
        try:
            busy = time.monotonic()
            while not (self._stop.is_set() or forgotten.is_set() or connection.expelled.is_set()):
                if self._answer_one(connection):
                    busy = time.monotonic()
                else:
                    self._stop.wait(self._pace.pause(time.monotonic() - busy, connection.poll_seconds))
        finally:
            ended.set()
            beats.join(timeout=1.0)

    def _beat(self, connection: Connection, forgotten: threading.Event, ended: threading.Event) -> None:
        while not ended.wait(connection.heartbeat_seconds * self._rng.uniform(0.7, 0.9)):
            try:
                if not connection.beat():
                    forgotten.set()
                    return
            except grpc.RpcError as error:
                log.warning("heartbeat failed: %s", _describe(error))

    def _answer_one(self, connection: Connection) -> bool:
        envelope = connection.poll()
        if envelope is None:
            return False
        log.info("received: %s of run %d", clean(envelope[0].metadata.message_type), envelope[0].metadata.run_id)
        started = time.perf_counter()
        reply = self._reply(connection, envelope)
        if reply is not None:
            self._push(connection, envelope[0], reply, time.perf_counter() - started)
        return True

    def _reply(self, connection: Connection, envelope: tuple[Message, object]) -> Message | None:
        head = envelope[0]
        try:
            message = connection.fetch(envelope)  # type: ignore[arg-type]
        except grpc.RpcError as error:
            if error.code() in REFUSALS:
                log.info("message dropped: %s", _describe(error))
                return None
            raise
        except Exception as error:  # noqa: BLE001
            return failed(head, error)
        try:
            return self._app(message, self._context(head.metadata.run_id, connection.node_id))
        except BaseException as error:  # noqa: BLE001  a user's code may call sys.exit, or raise what it likes
            return failed(head, error)

    def _push(self, connection: Connection, head: Message, reply: Message, seconds: float) -> None:
        """Push a reply, again after each lost connection, until it is there or the server has no use for it."""
        for attempt in range(8):
            try:
                return connection.send(reply, seconds)
            except grpc.RpcError as error:
                raise_if_refused(error)
                if error.code() in REFUSALS:
                    log.info("reply dropped: %s", _describe(error))
                    return None
                log.warning("reply not sent (%s); trying again", _describe(error))
                self._stop.wait(back_off(attempt, rng=self._rng, longest=5.0))
            except Unwanted:
                log.info("reply dropped: nobody waits for it any more")
                return None
            except Exception as error:  # a name or a text in the reply cannot be sent
                if reply.has_error():
                    log.exception("reply dropped: it cannot be sent")
                    return None
                reply = failed(head, error)
        log.error("reply given up after 8 attempts")
        return None

    def _context(self, run_id: int, node_id: int) -> Context:
        if run_id not in self._contexts:
            self._contexts = {}  # one run at a time: the state of an earlier one is of no more use
            self._contexts[run_id] = Context(
                run_id=run_id, node_id=node_id, node_config=self._node_config, state=RecordDict(), run_config={}
            )
        return self._contexts[run_id]

    def _leave(self, connection: Connection) -> None:
        """Say goodbye, once the last reply was taken: a SuperLink drops the replies of a node that has left."""
        limit = time.monotonic() + LEAVE_SECONDS
        try:
            while not connection.taken() and time.monotonic() < limit:
                time.sleep(self._pace.shortest)
            connection.leave()
            log.info("left the server")
        except grpc.RpcError as error:
            log.info("left without a goodbye: %s", _describe(error))


def _describe(error: grpc.RpcError) -> str:
    return f"{error.code().name}: {clean(error.details())}"
