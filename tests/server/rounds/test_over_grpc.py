"""Rounds over a real SuperLink and real nodes: replies that come late, not at all, in vain, or too large."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

from fl_client.link.connection import Connection
from fl_common.messages import packed_arrays
from fl_common.messages.arrays import decode, encode
from fl_common.settings.schema import Settings
from fl_server.superlink.grid.pulling import GONE
from tests.support.driven_server import PATIENCE, Server, grid_for_a_module, server_for_a_module, serving, until
from tests.support.small_rounds import events, run

pytestmark = pytest.mark.slow


server = server_for_a_module(lambda directory: Server(directory, lost_after_seconds=4.0))
grid = grid_for_a_module(Settings(max_reply_mb=6))


class Telling(Connection):
    """Says when it has sent a reply."""

    def __init__(self, address, sent):
        super().__init__(address)
        self._told = sent

    def send(self, reply, seconds):
        super().send(reply, seconds)
        self._told.set()


def client(server, app, sent=None):
    """A node in a thread of this process, stopped at the end."""
    return serving(lambda: Telling(server.addresses.fleet, sent or threading.Event()), app)


@contextmanager
def clients(server, grid, *apps, sent=None):
    """As many nodes; `sent` is set when the last of them has sent a reply."""
    with ExitStack() as stack:
        for app in apps[:-1]:
            stack.enter_context(client(server, app))
        stack.enter_context(client(server, apps[-1], sent))
        until(lambda: len(list(grid.get_node_ids())) == len(apps))
        yield


def moving(step=1.0, size=0, before=lambda number: None):
    """A client that moves the model by `step`, and adds `size` bytes of nothing to its reply."""

    def app(message, context):
        content = packed_arrays.unpack(message.content)
        before(content["config"]["server-round"])
        moved = {"w": decode(content["arrays"]["w"]) + np.float32(step)}
        reply = RecordDict({"metrics": MetricRecord({"num-examples": 10}), "arrays": encode(moved)})
        if size:
            reply["more"] = encode({"more": np.random.default_rng(0).integers(0, 256, size, np.uint8)})
        return Message(reply, reply_to=message)

    return app


class RoundLate:
    """Holds one client back until the second round has begun, and that round until the client has answered."""

    def __init__(self):
        self.begun, self.sent = threading.Event(), threading.Event()

    def slow(self, number):
        assert self.begun.wait(PATIENCE)

    def quick(self, number):
        if number == 2:
            self.begun.set()
            assert self.sent.wait(PATIENCE)


def test_a_reply_after_the_deadline_is_told_dropped_and_never_folded_into_a_later_round(server, grid, tmp_path):
    late = RoundLate()
    apps = moving(before=late.quick), moving(1000.0, before=late.slow)
    with clients(server, grid, *apps, sent=late.sent):
        options = {"rounds": 2, "min_clients": 2, "deadline_seconds": 8.0, "aside_after": 1, "aside_rounds": 20}
        state, made = run(tmp_path / "run", grid, **options)
    assert state.arrays["w"].tolist() == [2.0] * 3
    assert [(each["round"], each["reason"]) for each in events(made, "rejected")] == [(1, "late")]
    (dropped,) = events(made, "dropped")
    assert (dropped["round"], dropped["reason"], dropped["phase"]) == (1, "late", "train")
    assert dropped["seconds"] >= 8.0


def test_what_comes_after_enough_have_come_is_surplus_and_the_superlink_forgets_it(server, grid, tmp_path):
    late = RoundLate()
    apps = moving(before=late.quick), moving(), moving(1000.0, before=late.slow)
    with clients(server, grid, *apps, sent=late.sent):
        options = {"rounds": 2, "min_clients": 3, "clients_per_round": 2, "over_selection": 1.5}
        state, made = run(tmp_path / "run", grid, **options)
    assert state.arrays["w"].tolist() == [2.0] * 3
    assert (events(made, "dropped")[0]["round"], events(made, "dropped")[0]["reason"]) == (1, "surplus")
    assert events(made, "rejected") == []
    assert [event["replies"] for event in made.rounds()] == [2] * 2


def test_a_reply_that_is_too_large_for_the_server_is_not_put_together(server, grid, tmp_path):
    with clients(server, grid, moving(), moving(1000.0, size=5_000_000)):
        state, made = run(tmp_path / "run", grid, rounds=1, min_clients=2, max_reply_mb=3)
    assert state.arrays["w"].tolist() == [1.0] * 3
    (event,) = events(made, "rejected")
    assert (event["reason"], event["detail"]) == ("size", "expected at most 3.0 MB; got more")


def test_a_reply_that_is_too_large_for_the_run_is_dropped_by_the_superlink_as_it_comes(server, grid, tmp_path):
    with clients(server, grid, moving(), moving(1000.0, size=50_000_000)):
        before = (server.directory / "state.db").stat().st_size
        state, made = run(tmp_path / "run", grid, rounds=3, min_clients=2, max_reply_mb=100, aside_after=0)
    assert state.arrays["w"].tolist() == [3.0] * 3
    told = events(made, "rejected")
    assert [each["reason"] for each in told] == ["size"] * 3
    assert all("dropped as it came" in each["detail"] for each in told)
    assert (server.directory / "state.db").stat().st_size - before < 30_000_000


def test_a_reply_that_cannot_be_taken_apart_is_malformed(server, grid, tmp_path):
    def garbled(message, context):
        arrays = ConfigRecord({packed_arrays.FIELD: b"\xcf" * 400})
        content = RecordDict({"metrics": MetricRecord({"num-examples": 10}), f"arrays{packed_arrays.SUFFIX}": arrays})
        return Message(content, reply_to=message)

    with clients(server, grid, moving(), garbled):
        state, made = run(tmp_path / "run", grid, rounds=1, min_clients=2)
    assert state.arrays["w"].tolist() == [1.0] * 3
    (event,) = events(made, "rejected")
    assert (event["reason"], event["detail"][:35]) == ("malformed", "small arrays cannot be taken apart:")


@contextmanager
def doomed(server, grid, taken: Path, signal_: int):
    """A client in a process of its own, which is sent a signal when it has taken a message."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    command = [
        sys.executable,
        str(Path(__file__).parents[2] / "support" / "lone_client.py"),
        server.addresses.fleet,
        str(taken),
    ]
    process = subprocess.Popen(command, env=environment)

    def kill():
        until(taken.exists)
        process.send_signal(signal_)

    killer = threading.Thread(target=kill, daemon=True)
    try:
        until(lambda: len(list(grid.get_node_ids())) == 1)
        killer.start()
        yield
    finally:
        process.kill()
        process.wait()
        killer.join(20)
        until(lambda: not list(grid.get_node_ids()))


def test_a_killed_client_is_lost_at_once_and_the_round_does_not_wait_for_its_deadline(server, grid, tmp_path):
    with doomed(server, grid, tmp_path / "taken", signal.SIGKILL), client(server, moving()):
        began = time.monotonic()
        state, made = run(tmp_path / "run", grid, rounds=1, min_clients=2, deadline_seconds=3600)
        assert time.monotonic() - began < 600
    assert state.arrays["w"].tolist() == [1.0] * 3
    assert [each["reason"] for each in events(made, "rejected")] == ["lost"]


class Leaving(Connection):
    """Says goodbye once another message waits for it."""

    def leave(self):
        until(self.poll)
        super().leave()


def test_a_client_that_is_told_to_stop_leaves_and_is_not_lost(server, grid, tmp_path):
    stop = threading.Event()

    def stopped(message, context):
        stop.set()  # as SIGTERM does: the message in hand is finished
        return moving()(message, context)

    with serving(lambda: Leaving(server.addresses.fleet), stopped, stop=stop), client(server, moving()):
        until(lambda: len(list(grid.get_node_ids())) == 2)
        state, made = run(tmp_path / "run", grid, rounds=1, min_clients=2, fraction_evaluate=1.0)
    assert state.arrays["w"].tolist() == [1.0] * 3
    assert [(each["phase"], each["reason"]) for each in events(made, "rejected")] == [("evaluate", "left")]
    (event,) = made.rounds()
    assert (event["replies"], event["left"], event["rejected"]) == (2, 1, 0)


@contextmanager
def falling(server, grid):
    """A client that is gone when it has announced a reply, before the reply's objects have come."""

    def fall(*arguments, **options):
        raise ConnectionAbortedError

    def reply(connection):
        message = connection.fetch(until(lambda: connection.beat() and connection.poll()))
        with suppress(ConnectionAbortedError):
            connection.send(moving()(message, None), 0.1)
        connection.__exit__(None, None, None)

    connection = Connection(server.addresses.fleet)
    connection._stub.PushObject = fall
    connection.join()
    until(lambda: connection.node_id in grid.get_node_ids())
    thread = threading.Thread(target=reply, args=(connection,), daemon=True)
    thread.start()
    yield
    thread.join(20)
    until(lambda: not list(grid.get_node_ids()))


def test_a_client_that_falls_while_it_sends_its_reply_is_lost_and_the_round_does_not_wait(server, grid, tmp_path):
    with falling(server, grid), client(server, moving()):
        until(lambda: len(list(grid.get_node_ids())) == 2)
        began = time.monotonic()
        state, made = run(tmp_path / "run", grid, rounds=1, min_clients=2, deadline_seconds=3600)
        assert time.monotonic() - began < 600
    assert state.arrays["w"].tolist() == [1.0] * 3
    assert [(each["reason"], each["detail"]) for each in events(made, "rejected")] == [("lost", GONE)]


def test_a_client_that_is_frozen_is_lost_when_its_heartbeats_stop(server, grid, tmp_path):
    with doomed(server, grid, tmp_path / "taken", signal.SIGSTOP), client(server, moving()):
        state, made = run(tmp_path / "run", grid, rounds=1, min_clients=2, deadline_seconds=3600)
    assert state.arrays["w"].tolist() == [1.0] * 3
    assert [each["reason"] for each in events(made, "rejected")] == ["lost"]
