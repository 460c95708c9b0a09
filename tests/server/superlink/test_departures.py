"""A client that says goodbye is counted as left: what Flower answers in its place, the phase, the words."""

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, TaskType
from flwr.supercore.inflatable.inflatable_object import get_object_tree, no_object_id_recompute
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.superlink.federation import NoOpFederationManager

from fl_cli import words
from fl_server.rounds.exchange import _is_lost
from fl_server.rounds.report import Assessed, TrainedModel, of_round
from fl_server.superlink.fleet.departures import GOODBYE, Departures
from fl_server.superlink.grid.pulling import LEFT, NODE_UNAVAILABLE
from tests.server.rounds.test_phase import MODEL, ClientHistory, answer, phase
from tests.support.strategy_messages import reply


class House:
    """Flower's state with two nodes, each of which was given a message."""

    def __init__(self, database):
        self.state = LinkStateFactory(database, NoOpFederationManager(), ObjectStoreFactory(database)).state()
        self.departures = Departures(self.state)
        self.run_id = self.state.create_run("", "", "", {}, "@none/default", None, None, TaskType.SERVER_APP)
        self.nodes = [self.state.create_node("owner", "owner", key, 30) for key in (b"one", b"two")]
        self.asked = [self._ask(node) for node in self.nodes]

    def _ask(self, node):
        self.state.activate_node(node, 1e6)
        message = Message(RecordDict({"a": ConfigRecord({"node": node % 1000})}), node, "evaluate", ttl=900.0)
        with no_object_id_recompute():
            message.metadata.__dict__ |= {"_run_id": self.run_id, "_src_node_id": 1}
            message.metadata.__dict__["_message_id"] = message.object_id
            self.state.object_store.preregister(self.run_id, get_object_tree(message))
            assert self.state.store_message_ins(message)
        return message.metadata.message_id

    def codes(self):
        found = {each.metadata.reply_to_message_id: each for each in self.state.get_message_res(set(self.asked))}
        assert all(each.metadata.message_id == each.object_id for each in found.values())
        return [found[each].error.code if each in found else None for each in self.asked]


@pytest.fixture(params=["a file", "memory"])
def house(request, tmp_path):
    return House(str(tmp_path / "state.db") if request.param == "a file" else FLWR_IN_MEMORY_DB_NAME)


def test_what_a_node_was_asked_that_said_goodbye_is_answered_as_left_and_of_a_lost_one_as_lost(house):
    leaving, lost = house.nodes
    house.departures.left(leaving)
    for node in (leaving, lost):
        house.state.deactivate_node(node)
    assert house.codes() == [LEFT, NODE_UNAVAILABLE]


def test_who_is_back_and_then_lost_is_lost(house):
    node = house.nodes[0]
    house.departures.left(node)
    house.state.deactivate_node(node)
    house.state.activate_node(node, 1e6)
    house.state.deactivate_node(node)
    assert house.codes() == [NODE_UNAVAILABLE, None]


def gone(code):
    message = Message(Error(code=code, reason=GOODBYE), reply_to=reply(MODEL, 5))
    assert _is_lost(message)  # so that another one is asked in its place
    return message


def test_a_client_that_left_is_counted_as_left_and_has_no_mark_against_it():
    history = ClientHistory()
    current = phase(said := [], name="evaluate", history=history)
    left, lost = (answer(gone(code), node) for code, node in ((LEFT, 10), (NODE_UNAVAILABLE, 20)))
    left, lost = (each.__class__(each.node, each.reply, 0.1, lost=True) for each in (left, lost))
    assert list(current.replies([left, lost], quorum=0)) == []
    assert (current.left, current.rejected) == (1, 1)
    assert [(each["client"], each["reason"]) for each in said] == [(0, "left"), (1, "lost")]
    assert [history.failures(node, "evaluate") for node in (10, 20)] == [0, 1]
    train = phase([])
    assert list(train.replies([answer(reply(MODEL, 5), 10)], quorum=1))
    event = of_round(4, TrainedModel(MODEL, {}, train, 0.0, 0), Assessed({}, current, 0, 0.0), {"train": 0.1})
    assert (event["left"], event["rejected"]) == (1, 1)
    assert "rejected 1  left 1" in words.DESCRIBE["round"](event)
    assert words.rejection(said[0]) == "round 4: client 0 left before its evaluation was there"
