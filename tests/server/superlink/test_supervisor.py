"""The supervisor, over a real database of Flower's and real run directories; processes and time are the test's."""

import contextlib
import json
import subprocess
import sys

import pytest
from flwr.common.constant import Status, SubStatus

from fl_common.settings.schema import Settings
from fl_server.store.checkpoints import Checkpoint
from fl_server.store.run_directories import RunDirectories
from fl_server.store.runs import Run
from fl_server.superlink.database import RAISED, LinkDatabase
from fl_server.superlink.execution.supervisor import Supervisor, pause
from tests.server.superlink.test_database import Link


class Process:
    """What the supervisor sees of a ServerApp's process."""

    exitcode = None

    def is_alive(self):
        return self.exitcode is None

    def kill(self):
        self.exitcode = -9

    def join(self):
        pass


class Killed:
    """What a cgroup says in which the kernel has just killed for memory."""

    def word(self):
        return "out of memory: limit 450 MiB, peak 450 MiB"


class Scene:
    """A server with one run: its ServerApp can be made to end, and time to pass."""

    def __init__(self, home, *, limit=3):
        self.home = home
        self.link = Link(home / "state.db")
        self.time = 0.0
        self.said = []
        self.supervisor = self.another(limit)
        self.run_id = self.link.submit()
        self.run = Run.create(home / "run", Settings())
        RunDirectories(home).note(self.run_id, self.run.directory)
        self.launch()

    def another(self, limit=3):
        database = LinkDatabase(self.home / "state.db")
        return Supervisor(database, self.home, limit=limit, say=self.said.append, clock=lambda: self.time)

    def launch(self):
        self.process = Process()
        self.supervisor.launched(self.link.start(self.run_id), self.process)

    def commit(self, number):
        self.run.commit(Checkpoint(number, {}), {"event": "round", "round": number})

    def end(self, code):
        self.process.exitcode = code
        self.supervisor.tick()

    def finish(self, outcome, details=""):
        self.link.state.finish_task(self.link.task(self.run_id), outcome, details)

    def wait(self, seconds=60.0):
        self.time += seconds
        self.supervisor.tick()

    @property
    def status(self):
        return self.link.status(self.run_id)

    @property
    def events(self):
        return [event["event"] for event in self.run.events()]


@pytest.fixture
def scene(tmp_path):
    return Scene(tmp_path)


def test_a_killed_serverapp_is_started_again_after_a_pause_and_the_events_say_so(scene):
    scene.commit(1)
    scene.end(-9)
    assert scene.status.status == Status.RUNNING
    scene.wait(pause(1))
    assert scene.status.status == Status.PENDING
    event = scene.run.events()[-1]
    assert (event["event"], event["attempt"], event["limit"]) == ("restarted", 1, 3)
    assert event["reason"] == "its process ended (SIGKILL)"
    log, _ = scene.link.state.get_task_log(scene.link.task(scene.run_id), None)
    assert json.loads(log) == event


def test_a_serverapp_that_the_kernel_killed_for_memory_is_named_as_such(tmp_path):
    scene = Scene(tmp_path)
    scene.supervisor._memory = Killed()
    scene.end(-9)
    scene.wait()
    reason = scene.run.events()[-1]["reason"]
    assert reason == "its process ended (SIGKILL, out of memory: limit 450 MiB, peak 450 MiB)"


def test_the_pause_grows_and_the_limit_ends_the_run_with_its_reason(scene):
    waits = []
    for attempt in (1, 2, 3):
        scene.end(-11)
        assert scene.status.status == Status.RUNNING
        scene.wait(pause(attempt) - 0.01)
        assert scene.status.status == Status.RUNNING
        scene.wait(0.01)
        waits.append(pause(attempt))
        scene.launch()
    assert waits == sorted(set(waits))
    scene.end(-11)
    assert scene.events == ["restarted"] * 3 + ["failed"]
    assert (
        "3 times in a row without completing a round; the last time: its process ended (SIGSEGV)"
        in (scene.run.events()[-1]["error"])
    )
    assert scene.status.sub_status == SubStatus.FAILED
    assert scene.run.status == "failed"
    scene.wait()
    assert not scene.supervisor.busy()


def test_a_committed_round_begins_a_new_row_of_starts(scene):
    for number in (1, 2, 3, 4, 5):
        scene.end(-9)
        scene.wait()
        scene.launch()
        scene.commit(number)
    assert [event["attempt"] for event in scene.run.events() if event["event"] == "restarted"] == [1] * 5


@pytest.mark.parametrize("word", ["finished", "failed"])
def test_a_run_that_said_its_last_word_is_left_and_flower_is_told_where_it_was_not(scene, word):
    scene.run.append({"event": word, "error": "a bad task"})
    scene.end(-9)
    scene.wait()
    assert scene.events == [word]
    outcome = {"finished": SubStatus.COMPLETED, "failed": SubStatus.FAILED}[word]
    assert (scene.status.status, scene.status.sub_status) == (Status.FINISHED, outcome)


def test_a_run_that_a_person_stopped_is_left(scene):
    scene.finish(SubStatus.STOPPED)
    scene.run.append({"event": "stopped"})
    scene.end(0)
    scene.wait()
    assert scene.events == ["stopped"]
    assert scene.status.sub_status == SubStatus.STOPPED


def test_a_run_that_a_person_stops_while_it_waits_to_be_started_again_is_left(scene):
    scene.end(-9)
    scene.finish(SubStatus.STOPPED)
    scene.wait()
    assert scene.events == []
    assert scene.status.sub_status == SubStatus.STOPPED


def test_a_serverapp_that_was_interrupted_without_its_run_being_stopped_is_started_again(scene):
    scene.run.append({"event": "stopped"})
    scene.finish(SubStatus.FAILED, "Task failed with unknown error.")
    scene.end(0)
    scene.wait()
    assert scene.events == ["stopped", "restarted"]
    assert scene.status.status == Status.PENDING


def test_an_error_of_the_server_around_it_is_no_error_of_the_run(scene):
    scene.finish(SubStatus.FAILED, f"{RAISED}: the database is locked")
    scene.end(1)
    scene.wait()
    assert scene.run.events()[-1]["reason"] == f"{RAISED}: the database is locked"


def test_a_serverapp_that_fails_before_it_has_a_run_is_not_tried_again(tmp_path):
    scene = Scene(tmp_path)
    other = scene.link.submit()
    process = Process()
    scene.supervisor.launched(scene.link.start(other), process)
    scene.link.state.finish_task(scene.link.task(other), SubStatus.FAILED, f"{RAISED}: unknown task 'nonsense'")
    process.exitcode = 1
    scene.supervisor.tick()
    scene.wait()
    assert scene.link.status(other).sub_status == SubStatus.FAILED


def test_a_serverapp_killed_before_it_has_a_run_is_started_again_up_to_the_limit(tmp_path):
    scene = Scene(tmp_path, limit=2)
    other = scene.link.submit()
    for _ in range(3):
        process = Process()
        scene.supervisor.launched(scene.link.start(other), process)
        process.exitcode = -9
        scene.supervisor.tick()
        scene.wait()
    assert scene.link.status(other).sub_status == SubStatus.FAILED
    assert "SIGKILL" in scene.link.status(other).details


def test_a_serverapp_that_hangs_after_flower_gave_its_run_up_is_killed_and_started_again(scene):
    scene.finish(SubStatus.FAILED, "No heartbeat received from the task")
    scene.wait()
    assert scene.process.is_alive()
    scene.wait()
    assert not scene.process.is_alive()
    scene.wait(0)
    scene.wait()
    assert scene.events == ["restarted"]


@pytest.mark.parametrize("details", ["", "No heartbeat received from the task", "Task failed with unknown error."])
def test_a_server_that_starts_queues_the_runs_of_the_one_before(scene, details):
    scene.commit(1)
    if details:
        scene.finish(SubStatus.FAILED, details)
    scene.another().recover()
    assert scene.status.status == Status.PENDING
    assert scene.run.events()[-1]["reason"] == "its server ended"


def test_a_server_that_starts_leaves_what_has_ended_and_what_waits(scene):
    waiting = scene.link.submit()
    scene.run.append({"event": "failed", "error": "a bad task"})
    scene.another().recover()
    assert scene.events == ["failed"]
    assert scene.status.status == Status.FINISHED
    assert scene.link.status(waiting).status == Status.PENDING


def test_a_server_that_keeps_falling_with_its_run_gives_it_up_too(scene):
    for _ in range(3):
        scene.another().recover()
        scene.link.start(scene.run_id)
    scene.another().recover()
    assert scene.events == ["restarted"] * 3 + ["failed"]


def test_with_a_limit_of_none_nothing_is_started_again(tmp_path):
    scene = Scene(tmp_path, limit=0)
    scene.end(-9)
    scene.wait()
    assert scene.status.sub_status == SubStatus.FAILED
    assert scene.events == ["failed"]


def test_a_database_that_cannot_be_used_is_said_once_and_tried_again(scene):
    path = scene.home / "state.db"
    path.rename(scene.home / "away")
    path.mkdir()
    scene.end(-9)
    for _ in range(3):
        scene.wait(5)
    assert [text for text in scene.said if "cannot be used" in text] == scene.said[-1:]
    path.rmdir()
    (scene.home / "away").rename(path)
    scene.wait(5)
    scene.wait()
    assert scene.events == ["restarted"]


@contextlib.contextmanager
def held(run):
    """Another process writes the run."""
    code = f"""
import sys
from pathlib import Path
from fl_server.store.runs import Run
with Run(Path({str(run.directory)!r})).lock():
    print("held", flush=True)
    sys.stdin.read()
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        yield
    finally:
        holder.communicate()


def test_a_run_that_another_process_still_writes_is_waited_for_and_holds_up_no_other(scene):
    other, directory = scene.link.submit(), scene.home / "other"
    Run.create(directory, Settings())
    RunDirectories(scene.home).note(other, directory)
    scene.supervisor.launched(scene.link.start(other), process := Process())
    process.exitcode = -9
    with held(scene.run):
        scene.end(-9)
        scene.wait(pause(1))
        scene.wait(pause(1))
        assert scene.link.status(other).status == Status.PENDING
        assert scene.events == []
        assert len([text for text in scene.said if "being written by another process" in text]) == 1
    scene.wait()
    assert scene.events == ["restarted"]


def test_restarts_of_a_server_that_was_told_to_stop_are_not_counted(scene):
    for _ in range(6):
        scene.another().recover(crashed=False)
        scene.link.start(scene.run_id)
    assert {event["attempt"] for event in scene.run.events()} == {0}
    scene.another().recover(crashed=True)
    assert scene.run.events()[-1]["attempt"] == 1


def test_a_claimed_run_whose_process_cannot_be_started_is_started_again(scene):
    other, directory = scene.link.submit(), scene.home / "other"
    Run.create(directory, Settings())
    RunDirectories(scene.home).note(other, directory)
    scene.supervisor.not_launched(scene.link.start(other), "its process could not be started (EOFError: )")
    scene.wait(0)
    scene.wait()
    assert scene.link.status(other).status == Status.PENDING
    assert Run.open(directory).events()[-1]["reason"] == "its process could not be started (EOFError: )"


def test_a_run_submitted_again_belongs_to_its_newest_number(scene):
    again = scene.link.submit()
    RunDirectories(scene.home).note(again, scene.run.directory)
    assert RunDirectories(scene.home).directory(scene.run_id) is None
    assert RunDirectories(scene.home).directory(again) == scene.run.directory


def test_a_run_that_had_all_its_rounds_is_complete_though_flower_gave_it_up_for_lost(scene):
    scene.link.state.query("UPDATE task SET active_until = '2026-01-01 00:00:00.000000+00:00'")  # the clock jumped
    assert scene.status.sub_status == SubStatus.FAILED
    word = scene.run.append({"event": "finished", "rounds": 3})
    scene.end(0)
    assert (scene.status.status, scene.status.sub_status) == (Status.FINISHED, SubStatus.COMPLETED)
    scene.another().recover()
    log, _ = scene.link.state.get_task_log(scene.link.task(scene.run_id), None)
    assert [json.loads(line) for line in log.splitlines()] == [word]


def test_a_superlink_that_fell_before_a_run_had_a_directory_is_no_error_of_the_run(tmp_path):
    scene = Scene(tmp_path)
    for name in ("settings.toml", "seal.json"):
        scene.home.joinpath("run", name).unlink()
    scene.finish(SubStatus.FAILED, f'{RAISED}: <_InactiveRpcError of RPC that terminated with:\n\tdetails = "reset"\n>')
    scene.end(1)
    scene.wait()
    assert scene.status.status == Status.PENDING
