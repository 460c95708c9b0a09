"""Flower's Control API: submit a run, see how it stands, follow its log, stop it."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc

from fl_common.errors import NetworkError
from fl_common.network import channels
from fl_common.network.addresses import parse
from fl_common.network.tls_handshake import diagnose
from fl_common.settings.schema import Scalar, Settings
from fl_common.trust.untrusted_text import clean
from fl_server.store.disk import whole_writes
from fl_server.superlink.database import FAILED, is_lost
from fl_server.superlink.execution import app_bundle
from fl_server.superlink.execution.task_files import TaskFiles

log = logging.getLogger(__name__)

CALL_SECONDS = 20.0
CONNECT_SECONDS = 5.0
WAIT_PAUSE = 1.0
FINISHED = "finished"
AGAIN_SECONDS = 0.5
STREAM_SECONDS = 60.0
GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
TROUBLE = (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)  # the server's own, such as a full disk: it may pass
SAID_SECONDS, TROUBLE_SECONDS, GONE_SECONDS = 5.0, 300.0, 900.0
TAKEN_UP_SECONDS = 120.0

Say = Callable[[str], object]


@dataclass(frozen=True)
class Status:
    """How a submitted run stands: Flower's status ("pending", "running", "finished"), sub-status and details."""

    state: str
    outcome: str
    details: str

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to the run."""
        return self.state == FINISHED


class _Away:
    """How long a server has not answered who follows a run."""

    def __init__(self, say: Say, address: str, run_id: int) -> None:
        self._say, self._address, self._run_id = say, address, run_id
        self.since: float | None = None
        self._said = False

    def is_back(self) -> None:
        """Take note of an answer."""
        if self._said:
            self._say(f"the server at {self._address} answers again")
        self.since, self._said = None, False

    def may_pass(self, error: grpc.RpcError) -> bool:
        """Say whether to try again after an error: one that time may mend, and has had no more than its time."""
        patience = GONE_SECONDS if error.code() in GONE else TROUBLE_SECONDS if error.code() in TROUBLE else None
        if patience is None:
            self.since = None
            return False
        now = time.monotonic()
        self.since = self.since or now
        if now - self.since >= SAID_SECONDS and not self._said:
            self._said = True
            self._say(f"the server at {self._address} does not answer; waiting up to {patience / 60:.0f} min for it")
        return now - self.since < patience

    @property
    def words(self) -> str:
        """Say what to do about it."""
        return (
            f"the server at {self._address} no longer answers. Run {self._run_id} goes on when `fl server` is started "
            "again with its store; `fl runs` shows it there."
        )


class _Lines:
    """The lines of a log that may be read again from its beginning: each is new as often as it stands there."""

    def __init__(self) -> None:
        self._seen: Counter[int] = Counter()
        self._again: Counter[int] = Counter()

    def again(self) -> None:
        """Expect all that was seen once more."""
        self._again = self._seen.copy()

    def new(self, lines: Iterable[str]) -> Iterator[str]:
        """Yield those that were not seen."""
        for line in lines:
            mark = hash(line)
            if self._again[mark] > 0:
                self._again[mark] -= 1
                continue
            self._seen[mark] += 1
            yield line


@dataclass(frozen=True)
class Submitted:
    """A run at a server: whether it begins with this submission, and which settings of this one do not count."""

    run_id: int
    new: bool = True
    ignored: str = ""


class _Bearer(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Shows the credential with each call, in the headers in which Flower's tools show an account's tokens."""

    def __init__(self, credential: str) -> None:
        from flwr.common.constant import ACCESS_TOKEN_KEY

        self._header = (ACCESS_TOKEN_KEY, credential)

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(details._replace(metadata=[*(details.metadata or []), self._header]), request)

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(details._replace(metadata=[*(details.metadata or []), self._header]), request)


class Control:
    """A client of one SuperLink's Control API. Raises NetworkError where it cannot be reached or refuses.

    Without `root_certificates` it is plaintext; a credential is never sent by plaintext.
    """

    def __init__(self, address: str, *, root_certificates: bytes | None = None, credential: str | None = None) -> None:
        from flwr.proto.control_pb2_grpc import ControlStub
        from flwr.supercore.interceptors import RuntimeVersionClientInterceptor

        parse(address, "--server")
        self._address, self._root_certificates = address, root_certificates
        self._channel = grpc.intercept_channel(
            channels.lasting(address, root_certificates),
            RuntimeVersionClientInterceptor(component_name="flwr CLI"),
            *([_Bearer(credential)] if credential and root_certificates else []),
        )
        self._stub = ControlStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def submit(self, settings: Settings, task: TaskFiles | None = None, strategy: TaskFiles | None = None) -> Submitted:
        """Submit a run with these settings, and the files of task and strategy where they travel.

        With a `name` in the settings, it is the run that has this name at the server, where one has.
        """
        from flwr.common.serde import fab_to_proto, user_config_to_proto
        from flwr.proto.control_pb2 import StartRunRequest
        from flwr.supercore.fab import Fab

        content, digest, settings = app_bundle.build(settings, task, strategy)
        request = StartRunRequest(
            fab=fab_to_proto(Fab(digest, content, {})),
            override_config=user_config_to_proto(settings.run_config()),
        )
        return self._start(request)

    def resume(self, name: str, changes: Mapping[str, Scalar]) -> Submitted:
        """Have the server go on with a run of its store, with these settings changed."""
        from flwr.common.serde import fab_to_proto, user_config_to_proto
        from flwr.proto.control_pb2 import StartRunRequest
        from flwr.supercore.fab import Fab

        content, digest, _ = app_bundle.build(Settings())
        config = user_config_to_proto({**changes, "name": name, "resume": True})
        return self._start(StartRunRequest(fab=fab_to_proto(Fab(digest, content, {})), override_config=config))

    def wait(self, seconds: float) -> None:
        """Return once a server answers. Raises NetworkError, as any call does, where none does for so long."""
        limit = time.monotonic() + seconds
        while True:
            try:
                self._connect()
            except NetworkError:
                if time.monotonic() >= limit:
                    raise
                time.sleep(WAIT_PAUSE)
            else:
                return

    def _start(self, request: Any) -> Submitted:
        self._connect()
        response = self._call(self._stub.StartRun, request)
        return Submitted(int(response.run_id), not response.note, response.note.partition(" ")[2])

    def status(self, run_id: int) -> Status:
        """Return how a run stands."""
        try:
            return self._status(run_id)
        except grpc.RpcError as error:
            raise NetworkError(self._refused(error)) from None

    def _status(self, run_id: int) -> Status:
        from flwr.proto.control_pb2 import ListRunsRequest

        response = self._stub.ListRuns(ListRunsRequest(run_id=run_id), timeout=CALL_SECONDS)
        status = response.run_dict[run_id].status
        return Status(status.status, status.sub_status, status.details)

    def stop(self, run_id: int) -> None:
        """Stop a run."""
        from flwr.proto.control_pb2 import StopRunRequest

        self._call(self._stub.StopRun, StopRunRequest(run_id=run_id))

    def log(self, run_id: int, *, say: Say = log.warning) -> Iterator[str]:
        """Yield the lines of a run's log as they come, until it ends. `say` is told of a server that does not answer.

        A server gives what is later than what it gave; at the end all is read once more, for lines that came late, or
        stand before others because its clock was set. Raises NetworkError where no answer lasts for GONE_SECONDS.
        """
        after, rest, over, lines = 0.0, "", False, _Lines()
        away = _Away(say, self._address, run_id)
        while True:
            try:
                for response in self._stream(run_id, after):
                    after = max(after, response.latest_timestamp)
                    away.is_back()
                    *whole, rest = (rest + response.log_output).split("\n")
                    yield from lines.new(whole)
                if over:
                    break
                over = not self._goes_on(run_id)
                away.is_back()
            except grpc.RpcError as error:
                if not away.may_pass(error):
                    raise NetworkError(self._refused(error) if away.since is None else away.words) from None
                time.sleep(AGAIN_SECONDS)
            if over:
                after, rest = 0.0, ""
                lines.again()
        if rest:
            yield rest

    def _stream(self, run_id: int, after: float) -> Iterator[Any]:
        """Yield what is new in a log for a while: a connection that is dead in silence is found by asking anew."""
        from flwr.proto.control_pb2 import StreamLogsRequest

        try:
            yield from self._stub.StreamLogs(
                StreamLogsRequest(run_id=run_id, after_timestamp=after), timeout=STREAM_SECONDS
            )
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise

    def _goes_on(self, run_id: int) -> bool:
        """Say whether a run that Flower has given up for lost is taken up again by its server, which takes seconds."""
        limit = time.monotonic() + TAKEN_UP_SECONDS
        while (status := self._status(run_id)).ended:
            if status.outcome != FAILED or not is_lost(status.details) or time.monotonic() > limit:
                return False
            time.sleep(AGAIN_SECONDS)
        return True

    def _connect(self) -> None:
        if self._root_certificates and (problem := diagnose(self._address, self._root_certificates)):
            raise NetworkError(problem)
        try:
            grpc.channel_ready_future(self._channel).result(CONNECT_SECONDS)
        except grpc.FutureTimeoutError:
            raise NetworkError(diagnose(self._address, self._root_certificates) or self._unanswered) from None

    def _call(self, method: Any, request: object) -> Any:
        try:
            return method(request, timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            raise NetworkError(self._refused(error)) from None

    def _refused(self, error: grpc.RpcError) -> str:
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            return self._unanswered
        if error.code() is grpc.StatusCode.UNAUTHENTICATED:
            return (
                f"the server at {self._address} refused the credential of Control. On the server's machine `fl run "
                "--store DIR` finds it; elsewhere name a copy of DIR/.superlink/control.credential with --credential."
            )
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return (
                f"the server at {self._address} answers, but not as Flower's Control API. Name that address with "
                "--server (port 9093 by default), not its Fleet or ServerAppIo address."
            )
        if words := whole_writes.of_database(str(error.details())):
            return f"the server at {self._address} cannot take it: {words}"
        return f"the server at {self._address} refused: {clean(str(error.details()).partition(chr(10))[0])}"

    @property
    def _unanswered(self) -> str:
        return f"no server answers at {self._address}. Start one with `fl server`, or name it with --server."
