"""One name is one run: a submission under a name that a run has is answered with that run, and starts nothing.

It stands before Flower's Control API, in the SuperLink's process; names are kept where Flower keeps a run's settings.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

import grpc
from flwr.common.serde import user_config_from_proto
from flwr.proto.control_pb2 import StartRunRequest, StartRunResponse

from fl_server.superlink.database import LinkDatabase

log = logging.getLogger(__name__)

METHOD = "/flwr.proto.Control/StartRun"
EXISTING = "existing"  # how the note of a response begins that names a run which was there; what differs follows
NOT_COMPARED = {"name", "task", "out", "store", "resume"}  # where a run lies; a task that travels has a name of its own


class NamedRuns(grpc.ServerInterceptor):
    """Answers a submission under a name: with the run that has it, or else as Flower does; one at a time.

    A submission that resumes is answered with the run only while that has not ended.
    """

    def __init__(self, database: LinkDatabase) -> None:
        self._database = database
        self._one = threading.Lock()

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """Put the look for the name before Flower's own handler."""
        handler = continuation(handler_call_details)
        if handler is None or handler_call_details.method != METHOD:
            return handler

        flowers: Callable[[Any, Any], StartRunResponse] = handler.unary_unary

        def start(request: StartRunRequest, context: grpc.ServicerContext) -> StartRunResponse:
            name, resumes = _text(request, "name"), _flag(request, "resume")
            if not name:
                return flowers(request, context)
            with self._one:
                found = self._database.named(name)
                if found is not None and not (resumes and found.outcome):
                    log.warning("run %s was submitted again; it is run %d", name, found.run_id)
                    changed = [] if resumes else differences(request, self._database.settings_of(found))
                    return StartRunResponse(run_id=found.run_id, note=f"{EXISTING} {', '.join(changed)}".strip())
                return flowers(request, context)

        return grpc.unary_unary_rpc_method_handler(
            start, request_deserializer=handler.request_deserializer, response_serializer=handler.response_serializer
        )


def differences(request: StartRunRequest, began: Mapping[str, Any]) -> list[str]:
    """Return what of a submission's settings differs from those that a run began with, as `rounds=500 (10)`."""
    now = user_config_from_proto(request.override_config)
    return [
        f"{key}={value} ({began[key]})"
        for key, value in now.items()
        if key in began and key not in NOT_COMPARED and value != began[key]
    ]


def _text(request: StartRunRequest, key: str) -> str:
    return str(request.override_config[key].string) if key in request.override_config else ""


def _flag(request: StartRunRequest, key: str) -> bool:
    return bool(request.override_config[key].bool) if key in request.override_config else False
