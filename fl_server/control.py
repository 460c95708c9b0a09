"""Flower's Control API: submit a run, see how it stands, follow its log, stop it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc

from fl_common.errors import NetworkError
from fl_common.settings import Settings
from fl_server import bundle
from fl_server.link_database import FAILED, is_lost

CALL_SECONDS = 20.0
CONNECT_SECONDS = 5.0
FINISHED = "finished"
TROUBLE = (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)  # the server's own, such as a full disk: it may pass
TROUBLE_SECONDS = 300.0
TAKEN_UP_SECONDS = 30.0


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
        from flwr.supercore.grpc import create_channel
        from flwr.supercore.interceptors import RuntimeVersionClientInterceptor

        self._address = address
        self._channel = create_channel(
            address,
            insecure=root_certificates is None,
            root_certificates=root_certificates,
            interceptors=[
                RuntimeVersionClientInterceptor(component_name="flwr CLI"),
                *([_Bearer(credential)] if credential and root_certificates else []),
            ],
        )
        self._stub = ControlStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def submit(self, settings: Settings) -> int:
        """Submit a run with these settings and return its id."""
        from flwr.common.serde import fab_to_proto, user_config_to_proto
        from flwr.proto.control_pb2 import StartRunRequest
        from flwr.supercore.fab import Fab

        content, digest, settings = bundle.build(settings)
        request = StartRunRequest(
            fab=fab_to_proto(Fab(digest, content, {})),
            override_config=user_config_to_proto(settings.run_config()),
        )
        self._connect()
        return int(self._call(self._stub.StartRun, request).run_id)

    def status(self, run_id: int) -> Status:
        """Return how a run stands."""
        from flwr.proto.control_pb2 import ListRunsRequest

        response = self._call(self._stub.ListRuns, ListRunsRequest(run_id=run_id))
        status = response.run_dict[run_id].status
        return Status(status.status, status.sub_status, status.details)

    def stop(self, run_id: int) -> None:
        """Stop a run."""
        from flwr.proto.control_pb2 import StopRunRequest

        self._call(self._stub.StopRun, StopRunRequest(run_id=run_id))

    def log(self, run_id: int) -> Iterator[str]:
        """Yield the lines of a run's log as they come, until it ends."""
        from flwr.proto.control_pb2 import StreamLogsRequest

        after, rest, well = 0.0, "", time.monotonic()
        while True:
            try:
                for response in self._stub.StreamLogs(StreamLogsRequest(run_id=run_id, after_timestamp=after)):
                    after, well = response.latest_timestamp, time.monotonic()
                    *lines, rest = (rest + response.log_output).split("\n")
                    yield from lines
                if not self._goes_on(run_id):
                    break
            except grpc.RpcError as error:
                trouble = error.code() in TROUBLE and time.monotonic() - well < TROUBLE_SECONDS
                if error.code() is not grpc.StatusCode.UNAVAILABLE and not trouble:
                    raise NetworkError(self._refused(error)) from None
                time.sleep(0.5)
        if rest:
            yield rest

    def _goes_on(self, run_id: int) -> bool:
        """Say whether a run that Flower has given up for lost is taken up again by its server, which takes seconds."""
        limit = time.monotonic() + TAKEN_UP_SECONDS
        while (status := self.status(run_id)).ended:
            if status.outcome != FAILED or not is_lost(status.details) or time.monotonic() > limit:
                return False
            time.sleep(0.5)
        return True

    def _connect(self) -> None:
        try:
            grpc.channel_ready_future(self._channel).result(CONNECT_SECONDS)
        except grpc.FutureTimeoutError:
            raise NetworkError(self._unanswered) from None

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
        return f"the server at {self._address} refused: {error.details()}"

    @property
    def _unanswered(self) -> str:
        return f"no server answers at {self._address}. Start one with `fl server`, or name it with --server."
