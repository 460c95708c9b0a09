"""A SuperLink that falls at any instruction of a push, a pull or a reply: the run goes on, or is started again."""

import sqlite3

import grpc
import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree

from fl_common.messages import packed_arrays
from fl_common.messages.arrays import decode, encode
from fl_server.rounds.clock import Clock
from fl_server.rounds.exchange import Stream
from fl_server.superlink.fleet.object_store import is_whole, withdraw
from fl_server.superlink.fleet.reply_bounds import bounds_of
from fl_server.superlink.grid.pulling import SUPERLINK_ERRORS
from fl_server.superlink.grid.pushing import push
from tests.support.falling_link import Link

MODEL = {"large": np.zeros(30_000, np.float32), "a": np.zeros(3, np.float32), "b": np.ones(2, np.float32)}


class Quick(Clock):
    """Time that passes only where somebody waits."""

    def __init__(self):
        self._now = 0.0

    def now(self):
        return self._now

    def sleep(self, seconds):
        self._now += max(seconds, 0.05)


@pytest.fixture
def link(tmp_path, caplog):
    caplog.set_level("WARNING", "flwr")
    link = Link(tmp_path / "state.db")
    yield link
    link.close()


def trained(message):
    content = packed_arrays.unpack(message.content)
    moved = {name: decode(array) + np.float32(1) for name, array in content["arrays"].items()}
    reply = RecordDict({"arrays": encode(moved), "metrics": MetricRecord({"num-examples": 10})})
    return Message(packed_arrays.pack(reply), reply_to=message)


def asked(nodes, number):
    """The messages of a round, whose model is that of no other."""
    record = encode({name: array + np.float32(number) for name, array in MODEL.items()})
    content = [RecordDict({"arrays": record, "config": ConfigRecord({"client": node % 1000})}) for node in nodes]
    return record, [Message(each, node, "train", ttl=900.0) for each, node in zip(content, nodes, strict=True)]


def a_round(link, number):
    """Ask all clients; return what each answered: the model's step, or None where its answer was lost."""
    record, messages = asked([client.node for client in link.clients], number)
    answers = Stream(link.grid, messages, deadline=20.0, clock=Quick(), bounds=bounds_of(record, 0.0, arrays=True))
    found = [answer.reply for answer in answers]
    answers.close()
    return [
        None if reply is None or reply.has_error() else float(decode(reply.content["arrays"]["large"])[0]) - number
        for reply in found
    ]


def fallen(link, *, stride=1, **how):
    """Run round after round, each with a fall one step later; return where they fell, and how many answers it cost."""
    places, lost, step = [], 0, 1
    while True:
        link.fall_at(step, **how)
        answers = a_round(link, step)  # what it raises would be among SUPERLINK_ERRORS, and a restart
        if not link.fell:
            return places, lost
        assert set(answers) <= {1.0, None}
        places.append(link.fell.rpartition("/")[2])
        lost += answers.count(None)
        step += stride


def test_a_superlink_that_falls_between_any_two_calls_of_a_run_costs_an_answer_at_most(link):
    link.client(trained)
    assert a_round(link, 0) == [1.0]
    places, lost = fallen(link, between_calls=True)
    assert {"PushMessages", "PushObject", "PullMessages", "PullObject", "ConfirmMessageReceived"} == set(places)
    assert lost <= places.count("PullMessages")  # Flower takes a reply for delivered before it has delivered it


@pytest.mark.slow
def test_a_superlink_that_falls_at_any_instruction_costs_an_answer_at_most(link):
    for _ in range(2):
        link.client(trained)
    places, lost = fallen(link, stride=5)
    assert "transaction" in places
    assert lost <= len(places) // 5


def test_what_a_grid_raises_where_its_superlink_falls_is_no_word_about_the_run():
    from flwr.supercore.inflatable.inflatable_utils import ObjectIdNotPreregisteredError, ObjectUnavailableError
    from flwr.supercore.run import RunNotRunningException

    assert {grpc.RpcError, RunNotRunningException, ObjectIdNotPreregisteredError, ObjectUnavailableError} == set(
        SUPERLINK_ERRORS
    )


# ---- hostile nodes, with nobody falling


def hostile(link, does):
    """A client that does something else with an envelope, and then answers as the others do."""
    client = link.client(trained)
    poll = client.connection.poll

    def polled():
        envelope = poll()
        if envelope is not None:
            does(client, *envelope)
        return envelope

    client.connection.poll = polled
    return client


def confirm(client, head, tree):
    request = ConfirmMessageReceivedRequest(
        node=client.connection._node, run_id=head.metadata.run_id, message_object_id=tree.object_id
    )
    client.connection._stub.ConfirmMessageReceived(request)


def test_a_confirmation_before_everything_was_sent_does_not_count(link):
    link.client(trained)
    hostile(link, confirm)
    assert a_round(link, 0) == [1.0, 1.0]
    assert a_round(link, 1) == [1.0, 1.0]


def test_a_confirmation_of_another_nodes_message_does_not_count(link):
    honest = link.client(lambda message: seen.append(message.metadata.message_id) or trained(message))
    seen, others = [], hostile(link, lambda client, head, tree: None)

    def both(message):
        for identity in seen:
            confirm(others, message, ObjectTree(object_id=identity))
        return trained(message)

    others._answer = both
    assert a_round(link, 0) == [1.0, 1.0]
    assert honest.node != others.node


def announced(client, head, tree):
    """Announce the model that all clients share, as this node's own reply."""
    (record,) = [child for child in tree.children[0].children if len(child.children)][:1]
    reply = Message(RecordDict(), reply_to=head)
    proto = message_to_proto(reply)
    proto.metadata.message_id = record.object_id
    request = PushMessagesRequest(node=client.connection._node, messages_list=[proto], message_object_trees=[record])
    with pytest.raises(grpc.RpcError, match="expected a reply, not a part of another message"):
        client.connection._stub.PushMessages(request)
    told.append(record.object_id)


told = []


def test_a_part_of_another_message_cannot_be_announced_as_a_reply_and_withdrawn(link):
    link.client(trained)
    hostile(link, announced)
    assert a_round(link, 0) == [1.0, 1.0]
    assert told
    withdraw(link.store, told[-1])


def test_what_others_refer_to_is_never_withdrawn(link):
    link.client(trained).step = lambda: False
    record, messages = asked([link.clients[0].node], 0)
    push(link.grid, messages)
    withdraw(link.store, record.object_id)
    withdraw(link.store, record["large"].object_id)
    assert is_whole(link.store, messages[0].object_id)
    assert link.store.get(record["large"].object_id).startswith(b"Array ")


def crowded(number, *, deep=False):
    """An object tree of `number` objects."""
    identities = [f"{place:064x}" for place in range(number)]
    if not deep:
        return ObjectTree(object_id=identities[0], children=[ObjectTree(object_id=each) for each in identities[1:]])
    tree = ObjectTree(object_id=identities[-1])
    for each in identities[-2::-1]:
        tree = ObjectTree(object_id=each, children=[tree])
    return tree


@pytest.mark.parametrize("tree", [crowded(2000), crowded(20, deep=True)], ids=["wide", "deep"])
def test_a_reply_of_more_objects_than_its_message_can_need_is_refused(link, tree):
    def does(client, head, _):
        proto = message_to_proto(Message(RecordDict(), reply_to=head))
        proto.metadata.message_id = tree.object_id
        request = PushMessagesRequest(node=client.connection._node, messages_list=[proto], message_object_trees=[tree])
        before = len(link.store)
        with pytest.raises(grpc.RpcError, match="a reply to this message has at most 10"):
            client.connection._stub.PushMessages(request)
        assert len(link.store) == before

    hostile(link, does)
    assert a_round(link, 0) == [1.0]


def test_a_run_of_many_objects_is_queued_again_in_a_time_that_grows_with_their_number_only(link):
    def statements(count):
        link.store.preregister(link.run_id, crowded(count))
        steps = 0

        def step():
            nonlocal steps
            steps += 1

        connect = sqlite3.connect

        def watched(*arguments, **options):
            connection = connect(*arguments, **options)
            connection.set_progress_handler(step, 100)
            return connection

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sqlite3, "connect", watched)
            link.database.queue(link.database.run(link.run_id))
        return steps

    few, many = statements(500), statements(4000)
    assert many < 12 * few  # quadratic, it is 64 times
    assert len(link.store) == 0
