"""The SuperLink's database, written by Flower's own code: how runs stand, and a run that is queued again."""

import pytest
from flwr.common.constant import Status, SubStatus
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.supercore.constant import TaskType
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.superlink.federation import NoOpFederationManager

from fl_common.errors import StoreError
from fl_server.superlink.database import COMPLETED, FAILED, LOST, RAISED, LinkDatabase, in_short, is_lost

FEDERATION = "@none/default"


class Link:
    """Flower's own state of a SuperLink over a file, as the SuperLink uses it."""

    def __init__(self, path):
        objects = ObjectStoreFactory(str(path))
        self.state = LinkStateFactory(str(path), NoOpFederationManager(), objects).state()

    def submit(self):
        return self.state.create_run("", "", "", {}, FEDERATION, None, None, TaskType.SERVER_APP)

    def claim(self, run_id):
        task = self.task(run_id)
        return self.state.claim_task(task)

    def start(self, run_id):
        token = self.claim(run_id)
        assert self.state.activate_task(self.task(run_id))
        return token

    def task(self, run_id):
        return self.state.get_run_info(run_ids=[run_id])[0].primary_task_id

    def status(self, run_id):
        return self.state.get_run_status({run_id})[run_id]


@pytest.fixture
def link(tmp_path):
    return Link(tmp_path / "state.db")


@pytest.fixture
def database(link, tmp_path):
    return LinkDatabase(tmp_path / "state.db")


def test_a_database_that_is_not_there_yet_knows_no_run(tmp_path):
    assert LinkDatabase(tmp_path / "state.db").runs() == []


def test_a_file_that_is_no_database_is_an_error_that_names_it(tmp_path):
    (tmp_path / "state.db").write_bytes(b"nonsense" * 1000)
    with pytest.raises(StoreError, match=r"state\.db cannot be used"):
        LinkDatabase(tmp_path / "state.db").runs()


def test_runs_are_as_flower_left_them(link, database):
    waiting, running, done = link.submit(), link.submit(), link.submit()
    token = link.start(running)
    link.start(done)
    link.state.finish_task(link.task(done), SubStatus.COMPLETED, "well")
    runs = {run.run_id: run for run in database.runs()}
    assert not runs[waiting].claimed
    assert (runs[running].claimed, runs[running].outcome) == (True, "")
    assert (runs[done].outcome, runs[done].details) == (COMPLETED, "well")
    assert database.run_of(token).run_id == running
    assert database.run_of("unknown") is None


@pytest.mark.parametrize("ended", [False, True])
def test_a_run_that_is_queued_again_is_one_that_flower_starts(link, database, ended):
    run_id = link.submit()
    token = link.start(run_id)
    if ended:
        link.state.finish_task(link.task(run_id), SubStatus.FAILED, "No heartbeat received from the task")
    database.queue(database.run(run_id))
    assert link.status(run_id).status == Status.PENDING
    assert link.state.get_task_by_token(token) is None  # an earlier ServerApp that wakes up is nobody
    fresh = link.start(run_id)
    assert fresh != token
    assert link.status(run_id).status == Status.RUNNING


def test_what_a_queued_run_had_under_way_is_gone_and_that_of_others_stays(link, database):
    from flwr.app import ConfigRecord, Message, RecordDict
    from flwr.supercore.inflatable.inflatable_object import (
        get_all_nested_objects,
        get_object_tree,
        no_object_id_recompute,
    )

    node = link.state.create_node("owner", "owner", b"a key", 30)
    link.state.acknowledge_node_heartbeat(node, 1e6)
    store = link.state.object_store
    ours, theirs = link.submit(), link.submit()
    shared = ConfigRecord({"shared": 1})
    for run_id in (ours, theirs):
        link.start(run_id)
        message = Message(
            RecordDict({"a": shared, "b": ConfigRecord({"run": run_id % 1000})}), node, "train", ttl=900.0
        )
        with no_object_id_recompute():
            message.metadata.__dict__ |= {"_run_id": run_id, "_src_node_id": 1}
            message.metadata.__dict__["_message_id"] = message.object_id
            store.preregister(run_id, get_object_tree(message))
            for identity, each in get_all_nested_objects(message).items():
                store.put(identity, each.deflate())
            assert link.state.store_message_ins(message)
    before = len(store)
    database.queue(database.run(ours))
    assert link.state.get_message_ids_from_run_id(ours) == set()
    assert len(link.state.get_message_ids_from_run_id(theirs)) == 1
    assert shared.object_id in store
    assert len(store) == before - 3  # the message, its content and the record of its own
    store.delete_objects_in_run(theirs)
    left = link.state.get_message_ins(node, None)
    assert [message.metadata.run_id for message in left] == [theirs]


def test_a_claim_that_is_renewed_does_not_run_out_while_the_superlink_is_away(link, database):
    lost, kept = link.submit(), link.submit()
    link.start(lost)
    link.state.query("UPDATE task SET active_until = '2026-01-01 00:00:00.000000+00:00' WHERE token IS NOT NULL")
    assert link.status(lost).details in LOST
    token = link.start(kept)
    link.state.query("UPDATE task SET active_until = '2026-01-01 00:00:00.000000+00:00' WHERE token IS NOT NULL")
    database.renew()
    assert link.status(kept).status == Status.RUNNING
    assert link.state.get_task_by_token(token).run_id == kept
    assert link.state.acknowledge_task_heartbeat(link.task(kept))


def test_there_is_nothing_to_renew_before_the_first_start(tmp_path):
    LinkDatabase(tmp_path / "state.db").renew()
    assert list(tmp_path.iterdir()) == []


def test_an_outcome_and_a_line_of_log_reach_those_who_follow(link, database):
    run_id = link.submit()
    link.start(run_id)
    run = database.run(run_id)
    database.tell(run, '{"event": "restarted"}')
    database.finish(run, FAILED, "given up")
    status = link.status(run_id)
    assert (status.status, status.sub_status, status.details) == (Status.FINISHED, SubStatus.FAILED, "given up")
    assert link.state.get_task_log(run.task, None)[0] == '{"event": "restarted"}\n'


FULL = f"""{RAISED}: <_InactiveRpcError of RPC that terminated with:
\tstatus = StatusCode.UNKNOWN
\tdetails = "Exception calling application: (sqlite3.OperationalError) database or disk is full
(Background on this error at: https://sqlalche.me/e/21/e3q8)"
>"""


@pytest.mark.parametrize("details", [*LOST, FULL, f"{RAISED}: "])
def test_what_happened_around_a_run_is_no_error_of_its_own(details):
    assert is_lost(details)


@pytest.mark.parametrize("details", ["", f"{RAISED}: unknown task 'nonsense'", "given up"])
def test_an_error_of_the_runs_own_is_one(details):
    assert not is_lost(details)


def test_an_error_of_grpc_is_told_in_one_line():
    assert in_short(FULL) == (
        "its SuperLink failed: Exception calling application: (sqlite3.OperationalError) database or disk is full"
    )
    assert in_short(f"{RAISED}: a\nb") == f"{RAISED}: a"
