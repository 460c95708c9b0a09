"""A hostile client on the real Fleet API, among honest ones: what it sends is rejected, and the run goes on."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.common.serde import message_to_proto
from flwr.proto import fleet_pb2
from flwr.supercore.inflatable.inflatable_object import get_object_tree, no_object_id_recompute

from fl_client.link.connection import Connection, _bare
from fl_client.link.enrolment import enrol
from fl_client.link.node import Node
from fl_common.messages import packed_arrays
from fl_common.settings.schema import Settings
from fl_common.trust import keys
from fl_common.trust.tokens import Token
from fl_server.store.runs import Run
from parterre.federation import LocalFederation

GARBAGE = np.random.default_rng(0).bytes(400)
METRICS = MetricRecord({"num-examples": 10, "loss": 0.1, "accuracy": 1.0, "seconds": 0.1})


def random_bytes(message: Message) -> RecordDict:
    names = packed_arrays.unpack(message.content)["arrays"]
    arrays = {name: Array(array.dtype, array.shape, array.stype, GARBAGE) for name, array in names.items()}
    return RecordDict({"arrays": ArrayRecord(arrays), "metrics": METRICS})


def random_pack(message: Message) -> RecordDict:
    return RecordDict(
        {f"arrays{packed_arrays.SUFFIX}": ConfigRecord({packed_arrays.FIELD: GARBAGE}), "metrics": METRICS}
    )


def not_a_number(message: Message) -> RecordDict:
    arrays = {
        name: np.full(a.shape, np.nan, a.dtype) for name, a in packed_arrays.unpack(message.content)["arrays"].items()
    }
    return RecordDict({"arrays": ArrayRecord({n: Array(a) for n, a in arrays.items()}), "metrics": METRICS})


HOSTILE: list[Callable[[Message], RecordDict]] = [random_bytes, random_pack, not_a_number]


class Withholding(Connection):
    """Announces each fourth reply and never sends its objects."""

    sent = 0

    def send(self, reply: Message, seconds: float) -> None:
        self.sent += 1
        if self.sent % 4:
            super().send(reply, seconds)
            return
        with no_object_id_recompute():
            reply.metadata.__dict__["_message_id"] = reply.object_id
            request = fleet_pb2.PushMessagesRequest(
                node=self._node,
                messages_list=[message_to_proto(_bare(reply))],
                message_object_trees=[get_object_tree(reply)],
                clientapp_runtime_list=[seconds],
            )
            self._stub.PushMessages(request)


def enrolled(federation: LocalFederation) -> Withholding:
    """A client with a key of its own that is let in: being hostile begins behind the door."""
    key, authority = keys.generate(), federation.access.files.ca.read_bytes()
    token = Token.parse(federation.enrolment_token())
    enrol(federation.addresses.fleet, token, key, authority)
    return Withholding(federation.addresses.fleet, root_certificates=authority, key=key)


@contextmanager
def hostile_client(federation: LocalFederation) -> Iterator[None]:
    turn = iter(range(10**6))

    def app(message: Message, context: Context) -> Message:
        return Message(HOSTILE[next(turn) % len(HOSTILE)](message), reply_to=message)

    stop = threading.Event()
    node = Node(app, lambda: enrolled(federation), node_config={}, stop=stop)
    thread = threading.Thread(target=node.serve)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.slow
def test_garbage_on_the_wire_is_rejected_and_the_run_goes_on(tmp_path: Path, monkeypatch: Any) -> None:
    for key in ("FLWR_TELEMETRY_ENABLED", "FLWR_DISABLE_UPDATE_CHECK"):
        monkeypatch.setenv(key, {"FLWR_TELEMETRY_ENABLED": "0"}.get(key, "1"))
    settings = Settings(
        rounds=6,
        min_clients=3,
        partitions=3,
        deadline_seconds=15.0,
        fraction_evaluate=0.0,
        aside_after=0,
        out=str(tmp_path),
        resume=True,
    )
    run = Run.create(tmp_path, settings)
    with (
        LocalFederation(tmp_path, clients=2) as federation,
        hostile_client(federation),
        federation.control() as control,
    ):
        control.submit(settings)
        events = list(run.follow(lambda: bool(federation.tend())))
        federation.let_the_server_finish(run)
    assert events[-1]["event"] == "finished", events[-1]
    assert [event["replies"] for event in events if event["event"] == "round"] == [2] * 6
    reasons = [event["reason"] for event in events if event["event"] == "rejected"]
    assert len(reasons) == 6
    assert {"malformed", "not-finite"} <= set(reasons)
    assert {"late", "error"} & set(reasons)
