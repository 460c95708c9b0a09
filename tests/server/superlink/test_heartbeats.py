"""Heartbeats answered by session, over Flower's own states: who is kept online, and who is not brought back."""

from types import SimpleNamespace

import pytest
from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest, SendNodeHeartbeatResponse
from flwr.proto.node_pb2 import Node
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.superlink.federation import NoOpFederationManager

from fl_common.trust.enrolment import SESSION_HEADER
from fl_server.superlink.fleet.heartbeats import METHOD, Heartbeats
from fl_server.superlink.fleet.liveness import LastHeard, Sessions

INTERVAL = 10.0


class House:
    """A state with one node, its session, and the beats of it. What goes the usual way is answered as Flower would."""

    def __init__(self, database):
        self.state = LinkStateFactory(database, NoOpFederationManager(), ObjectStoreFactory(database)).state()
        self.node = self.state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, b"key", 0)
        self.sessions = Sessions()
        self.sessions.begin("client", "session", self.node)
        self.beats = Heartbeats(self.state, self.sessions, LastHeard(), INTERVAL)
        self.verified = 0

    def beat(self, session="session", interval=INTERVAL, node=None):
        request = SendNodeHeartbeatRequest(node=Node(node_id=node or self.node), heartbeat_interval=interval)
        details = SimpleNamespace(method=METHOD, invocation_metadata=[(SESSION_HEADER, session)])
        handler = self.beats.handler("client", details, self.authenticated)
        return (handler or self.authenticated()).unary_unary(request, None).success

    def authenticated(self):
        self.verified += 1
        online = self.state.acknowledge_node_heartbeat(self.node, INTERVAL)
        return SimpleNamespace(unary_unary=lambda *_: SendNodeHeartbeatResponse(success=online))

    @property
    def status(self):
        return self.state.get_node_info(node_ids=[self.node])[0].status


@pytest.fixture(params=["a file", "memory"])
def house(request, tmp_path):
    return House(str(tmp_path / "state.db") if request.param == "a file" else FLWR_IN_MEMORY_DB_NAME)


def test_who_is_heard_of_is_online_once_it_is_written(house):
    assert house.beat()
    house.beats.write()
    assert (house.status, house.verified) == ("online", 0)


def test_who_said_goodbye_is_not_brought_back_by_what_was_heard_before(house):
    house.beat()
    house.beats.write()
    house.beat()
    house.state.deactivate_node(house.node)
    house.beats.write()
    assert house.status == "offline"


def test_after_a_goodbye_the_session_alone_proves_nothing(house):
    house.sessions.left("client")
    house.beat()
    assert house.verified == 1


def test_another_session_another_node_and_another_interval_want_a_signature(house):
    for other in ({"session": "another"}, {"session": ""}, {"node": 7}, {"interval": 3600.0}):
        before = house.verified
        house.beat(**other)
        assert house.verified == before + 1


def test_a_node_that_flower_has_forgotten_is_told_so_at_its_next_heartbeat(house):
    house.state.delete_node(NOOP_FLWR_AID, house.node)
    assert house.beat()  # of which nothing is known yet
    house.beats.write()
    assert not house.beat()
    assert house.verified == 1


def test_what_could_not_be_written_is_written_later(house):
    acknowledge = house.state.acknowledge_node_heartbeat
    house.beat()
    house.state.acknowledge_node_heartbeat = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        house.beats.write()
    house.state.acknowledge_node_heartbeat = acknowledge
    house.beats.write()
    assert house.status == "online"
