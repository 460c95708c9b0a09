"""A machine's clock that is set while a server runs: by three hours forward, by one back. Nothing ends by it."""

import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.constant import Status
from flwr.server.superlink.fleet.grpc_rere import node_auth_server_interceptor
from flwr.server.superlink.linkstate import sql_linkstate
from flwr.server.superlink.linkstate import utils as linkstate_utils
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.server.utils import validator
from flwr.supercore import date
from flwr.supercore.corestate import sql_corestate
from flwr.superlink.servicer.control import control_servicer

from fl_server.access.enrolment import CLOCK_TOLERANCE
from fl_server.processes import steady_clock
from fl_server.processes.steady_clock import Steady
from fl_server.superlink.database import LinkDatabase
from fl_server.superlink.fleet import timestamps
from fl_server.superlink.fleet.timestamps import Nearest
from tests.server.superlink.test_database import Link

JUMPS = {"three hours forward": 3 * 3600.0, "an hour back": -3600.0, "a day forward": 86_400.0}
REPLACED = [
    *((module, "now") for module in (*timestamps.STEADY, validator, node_auth_server_interceptor)),
    (SqlLinkState, "store_message_ins"),
    (SqlLinkState, "store_message_res"),
]


class Wall:
    """The wall clock of this process, which a test sets."""

    def __init__(self, monkeypatch):
        self.jump, true = 0.0, time.time
        monkeypatch.setattr(time, "time", lambda: true() + self.jump)
        clock = SimpleNamespace(now=self.now, fromtimestamp=datetime.fromtimestamp)
        monkeypatch.setattr(steady_clock, "datetime", clock)
        monkeypatch.setattr(date, "datetime", SimpleNamespace(datetime=clock, UTC=UTC))

    def now(self, tz=None):
        return datetime.now(tz) + timedelta(seconds=self.jump)


@pytest.fixture
def wall(monkeypatch):
    return Wall(monkeypatch)


@pytest.fixture
def link(tmp_path, wall, monkeypatch):
    for owner, name in REPLACED:
        monkeypatch.setattr(owner, name, getattr(owner, name))  # what is installed is taken out again
    database = LinkDatabase(tmp_path / "state.db")
    timestamps.install(database.steady())
    return Link(tmp_path / "state.db")


def test_flower_has_all_the_places_that_are_replaced():
    assert {sql_corestate, sql_linkstate, linkstate_utils, control_servicer} == set(timestamps.STEADY)


@pytest.mark.parametrize("theirs", [0.0, 1.0], ids=["of this machine", "right"])  # the node's clock
@pytest.mark.parametrize("jump", JUMPS.values(), ids=JUMPS)
def test_a_run_and_a_node_stay_and_messages_are_delivered_and_answered(link, wall, jump, theirs):
    node = link.state.create_node("owner", "owner", b"a key", 30)
    link.state.acknowledge_node_heartbeat(node, 30)
    run_id = link.submit()
    token = link.start(run_id)
    before = _asked(link, run_id, node, 1)
    (taken,) = link.state.get_message_ins(node, None)
    wall.jump = jump
    assert link.status(run_id).status == Status.RUNNING
    assert link.state.get_task_by_token(token).run_id == run_id
    assert link.state.acknowledge_task_heartbeat(link.task(run_id))
    assert link.state.get_nodes(run_id) == {node}
    after = _asked(link, run_id, node, 2)
    answered = [taken, *link.state.get_message_ins(node, None)]
    assert [each.metadata.message_id for each in answered] == [before, after]
    for each in answered:
        wall.jump = jump - jump * theirs
        reply = Message(RecordDict(), reply_to=each)
        wall.jump = jump
        reply.metadata.__dict__["_message_id"] = reply.object_id
        assert link.state.store_message_res(reply)
    replies = link.state.get_message_res({before, after})
    assert len(replies) == 2
    assert not any(each.has_error() for each in replies)


def test_what_runs_out_does_so_by_the_time_that_passed(link, wall, monkeypatch):
    node = link.state.create_node("owner", "owner", b"a key", 30)
    link.state.acknowledge_node_heartbeat(node, 30)
    run_id = link.submit()
    link.start(run_id)
    message = _asked(link, run_id, node, 1)
    passed, true = 4000.0, time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: true() + passed)
    wall.jump = -3600.0
    assert link.state.get_nodes(run_id) == set()
    assert link.status(run_id).status == Status.FINISHED
    (reply,) = link.state.get_message_res({message})
    assert reply.has_error()


@pytest.mark.parametrize("jump", JUMPS.values(), ids=JUMPS)
def test_lines_of_a_log_stand_in_the_order_in_which_they_came_also_over_a_restart(link, wall, tmp_path, jump):
    run_id = link.submit()
    link.start(run_id)
    task, database = link.task(run_id), LinkDatabase(tmp_path / "state.db")
    link.state.add_task_log(task, "1\n")
    wall.jump = jump
    link.state.add_task_log(task, "2\n")
    database.tell(database.run(run_id), "3")  # the server's own process, that is started now
    after = link.state.get_task_log(task, None)[1]
    timestamps.install(database.steady())  # and another SuperLink of it
    link.state.add_task_log(task, "4\n")
    assert link.state.get_task_log(task, after)[0] == "4\n"
    assert link.state.get_task_log(task, None)[0] == "1\n2\n3\n4\n"
    assert link.status(run_id).status in (Status.RUNNING, Status.FINISHED)


def test_a_claim_that_the_server_renews_holds_for_the_next_superlink(link, wall, tmp_path):
    run_id = link.submit()
    link.start(run_id)
    link.state.add_task_log(link.task(run_id), "a line\n")
    wall.jump = -3600.0
    database = LinkDatabase(tmp_path / "state.db")
    database.renew()
    timestamps.install(database.steady())
    assert link.status(run_id).status == Status.RUNNING


@pytest.mark.parametrize("jump", JUMPS.values(), ids=JUMPS)
def test_a_signature_is_held_against_the_clock_that_it_is_nearer_to(wall, jump):
    nearest = Nearest(Steady.after())
    stamp = wall.now(UTC).isoformat()
    wall.jump = jump
    theirs = wall.now(UTC).isoformat()
    for each in (stamp, theirs):
        nearest.to(each)
        assert abs((nearest.now() - datetime.fromisoformat(each)).total_seconds()) < 60
    far = (wall.now(UTC) + timedelta(days=9)).isoformat()
    nearest.to(far)
    assert abs((nearest.now() - datetime.fromisoformat(far)).total_seconds()) > CLOCK_TOLERANCE
    for malformed in ("", "no time", "2020-01-01T00:00:00"):
        nearest.to(malformed)
        assert nearest.now().tzinfo is not None


def _asked(link, run_id, node, number):
    message = Message(RecordDict({"a": ConfigRecord({"number": number})}), node, "train", ttl=900.0)
    message.metadata.__dict__ |= {"_run_id": run_id, "_src_node_id": 1}
    message.metadata.__dict__["_message_id"] = message.object_id
    assert link.state.store_message_ins(message)
    return message.metadata.message_id
