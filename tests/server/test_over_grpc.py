"""Rounds over a real SuperLink and real nodes: replies that come late, that nobody needs, that are too large."""

import threading
import time
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
from driven import Server, until
from flwr.app import Message, MetricRecord, RecordDict
from small_rounds import events, run

from fl_client.connection import Connection
from fl_client.node import Node
from fl_common import wire
from fl_common.arrays import decode, encode

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("superlink"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def grid(server):
    grid = server.grid()
    yield grid
    grid.close()


@contextmanager
def client(server, app):
    """A node in a thread of this process, stopped at the end."""
    stop = threading.Event()
    node = Node(app, lambda: Connection(server.addresses.fleet), node_config={}, stop=stop)
    thread = threading.Thread(target=node.serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(20)


@contextmanager
def clients(server, grid, *apps):
    with ExitStack() as stack:
        for app in apps:
            stack.enter_context(client(server, app))
        until(lambda: len(list(grid.get_node_ids())) == len(apps))
        yield


def moving(step=1.0, seconds=0.0, size=0):
    """A client that moves the model by `step`, after `seconds`, and adds `size` bytes of nothing to its reply."""

    def app(message, context):
        time.sleep(seconds)
        content = wire.unpack(message.content)
        moved = {"w": decode(content["arrays"]["w"]) + np.float32(step)}
        reply = RecordDict({"metrics": MetricRecord({"num-examples": 10}), "arrays": encode(moved)})
        if size:
            reply["more"] = encode({"more": np.random.default_rng(0).integers(0, 256, size, np.uint8)})
        return Message(reply, reply_to=message)

    return app


def test_a_reply_after_the_deadline_is_told_dropped_and_never_folded_into_a_later_round(server, grid, tmp_path):
    with clients(server, grid, moving(), moving(), moving(1000.0, seconds=1.5)):
        options = {"rounds": 5, "min_clients": 3, "deadline_seconds": 1.0, "aside_after": 1, "aside_rounds": 20}
        state, made = run(tmp_path / "run", grid, **options)
        until(lambda: True)
        assert state.arrays["w"].tolist() == [5.0] * 3
    assert [each["reason"] for each in events(made, "rejected")] == ["late"]
    assert len(events(made, "aside")) == 1


def test_a_late_reply_is_dropped_from_the_superlink_while_the_run_goes_on(server, grid, tmp_path):
    with clients(server, grid, moving(seconds=0.4), moving(seconds=0.4), moving(1000.0, seconds=1.2)):
        options = {"rounds": 6, "min_clients": 3, "clients_per_round": 2, "over_selection": 1.5, "quorum": 2}
        state, made = run(tmp_path / "run", grid, **options)
        assert state.arrays["w"].tolist() == [6.0] * 3
    dropped = events(made, "dropped")
    assert dropped
    assert {each["reason"] for each in dropped} == {"surplus"}
    assert all(1.0 < each["seconds"] < 4.0 for each in dropped)
    assert events(made, "rejected") == []
    assert {event["replies"] for event in made.rounds()} == {2}


def test_a_reply_that_is_too_large_is_not_put_together(server, grid, tmp_path):
    with clients(server, grid, moving(), moving(1000.0, size=12_000_000)):
        state, made = run(tmp_path / "run", grid, rounds=1, min_clients=2)
        assert state.arrays["w"].tolist() == [1.0] * 3
        (event,) = events(made, "rejected")
        assert (event["reason"], event["detail"]) == ("size", "expected at most 4.0 MB; got more")
        state, made = run(tmp_path / "large", grid, rounds=1, min_clients=2, max_reply_mb=20)
        assert [each["reason"] for each in events(made, "rejected")] == ["malformed"]  # two records of arrays
