"""The resident node: how it paces itself, and how it serves, fails, falls out and leaves, against a real SuperLink."""

import random
import threading
from pathlib import Path

import grpc
import numpy as np
import pytest
from flwr.app import Message, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_client.link.connection import LONGEST_POLL_SECONDS, Connection, heartbeat_told, seconds_told
from fl_client.link.node import Pace, back_off
from fl_common.errors import Shown, TaskError
from fl_common.messages.arrays import decode, encode
from fl_server.rounds.exchange import Stream
from tests.support.driven_server import Server, grid_for_a_module, server_for_a_module, serving, until

seconds = st.floats(0, 1e6)


@settings(max_examples=100)
@given(seconds)
def test_a_pause_adds_at_most_its_share_to_a_wait_and_stays_in_its_bounds(idle):
    pace = Pace(share=0.05, shortest=0.01, longest=1.0)
    pause = pace.pause(idle)
    assert 0.01 <= pause <= 1.0
    assert pause <= max(0.05 * idle, 0.01)


@settings(max_examples=100)
@given(seconds, st.floats(0, 100))
def test_a_server_of_many_nodes_has_them_wait_longer_and_hurries_who_is_busy(idle, wanted):
    pause = Pace(shortest=0.01, longest=1.0).pause(idle, wanted)
    assert max(0.01, wanted / 10) <= pause <= max(1.0, wanted)
    assert pause >= Pace().pause(idle)


@settings(max_examples=100)
@given(seconds, seconds)
def test_who_has_been_idle_longer_never_polls_more_often(one, other):
    pauses = [Pace().pause(idle) for idle in sorted((one, other))]
    assert pauses == sorted(pauses)


def test_an_idle_node_polls_about_once_a_second():
    assert Pace().pause(60) == 1.0


@settings(max_examples=100)
@given(st.integers(0, 10**6), st.integers(0, 2**32))
def test_back_off_doubles_up_to_its_limit_with_jitter(attempt, seed):
    wait = back_off(attempt, rng=random.Random(seed))
    whole = min(30.0, 0.2 * 2 ** min(attempt, 20))
    assert whole / 2 <= wait <= whole


def test_two_nodes_do_not_come_back_at_the_same_time():
    waits = {back_off(3, rng=random.Random(seed)) for seed in range(20)}
    assert len(waits) == 20


server = server_for_a_module(Server)
grid = grid_for_a_module()


@pytest.fixture
def served(server):
    """What has an app served by a node of its own."""
    return lambda app, **options: serving(lambda: Connection(server.addresses.fleet), app, **options)


class Telling(Connection):
    """Counts how often its server has answered a join or a poll."""

    answered = 0

    def join(self):
        node = super().join()
        self.answered += 1
        return node

    def poll(self):
        envelope = super().poll()
        self.answered += 1
        return envelope


def echo(message, context):
    return Message(message.content, reply_to=message)


def nodes(grid, count=1):
    return until(lambda: found if len(found := list(grid.get_node_ids())) == count else None)


def ask(grid, *to, content=None, deadline=20.0):
    messages = [Message(content or RecordDict(), dst_node_id=node, message_type="train") for node in to]
    return {answer.node: answer.reply for answer in Stream(grid, messages, deadline=deadline)}


def test_a_node_joins_answers_and_says_goodbye(served, grid):
    arrays = {"w": np.arange(300_000, dtype=np.float32), "n": np.array(3)}
    with served(echo):
        (node,) = nodes(grid)
        reply = ask(grid, node, content=RecordDict({"arrays": encode(arrays)}))[node]
        back = {name: decode(array) for name, array in reply.content["arrays"].items()}
        assert all(np.array_equal(back[name], arrays[name]) for name in arrays)
    assert list(grid.get_node_ids()) == []  # at once: it did not wait for its heartbeats to stop


def test_the_app_is_told_the_nodes_own_configuration_and_keeps_its_state_within_a_run(served, grid):
    contexts = []

    def app(message, context):
        contexts.append(context)
        return echo(message, context)

    with served(app, node_config={"task": "digits", "resident": True}):
        (node,) = nodes(grid)
        ask(grid, node)
        ask(grid, node)
    assert contexts[0] is contexts[1]
    assert contexts[0].node_config == {"task": "digits", "resident": True}
    assert (contexts[0].node_id, contexts[0].run_id) == (node, grid.run.run_id)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no such digit"),
        KeyError("patient x"),
        SystemExit("the user's code left"),
        KeyboardInterrupt("in the user's code"),
        grpc.RpcError("of a service of the user's own"),
    ],
)
def test_an_exception_becomes_an_error_reply_and_the_node_lives_on(served, grid, error):
    def app(message, context):
        if "fail" in message.content:
            raise error
        return echo(message, context)

    with served(app):
        (node,) = nodes(grid)
        reply = ask(grid, node, content=RecordDict({"fail": encode({})}))[node]
        assert reply.has_error()
        place = f"({Path(__file__).name}, line"
        assert reply.error.reason.startswith(f"{type(error).__name__} {place}")
        assert str(error) not in reply.error.reason
        assert ask(grid, node)[node].has_content()


def test_a_reply_that_cannot_be_sent_becomes_an_error_reply_and_the_node_lives_on(served, grid):
    def app(message, context):
        if "fail" not in message.content:
            return echo(message, context)
        return Message(RecordDict({"metrics": MetricRecord({"patient \udce9": 1.0})}), reply_to=message)

    with served(app):
        (node,) = nodes(grid)
        reply = ask(grid, node, content=RecordDict({"fail": encode({})}))[node]
        assert reply.error.reason == "UnicodeEncodeError. The client's log has the rest."
        assert ask(grid, node)[node].has_content()


def test_a_file_name_that_is_no_text_ends_no_node(served, grid):
    def app(message, context):
        raise TaskError("there is no {file}", file=Shown("patient \udce9.csv"))

    with served(app):
        (node,) = nodes(grid)
        assert ask(grid, node)[node].has_error()
        assert ask(grid, node)[node].has_error()


def test_a_node_that_is_told_to_stop_finishes_the_message_in_hand(served, grid):
    stop, at_work = threading.Event(), threading.Event()

    def app(message, context):
        at_work.set()
        assert stop.wait(20)
        return echo(message, context)

    with served(app, stop=stop):
        (node,) = nodes(grid)
        threading.Thread(target=lambda: at_work.wait(20) and stop.set(), daemon=True).start()
        assert ask(grid, node)[node].has_content()


def test_two_nodes_serve_side_by_side(served, grid):
    with served(echo), served(echo):
        both = nodes(grid, 2)
        replies = ask(grid, *both)
        assert {reply.metadata.src_node_id for reply in replies.values()} == set(both)


def test_joining_again_changes_nothing_and_who_has_left_is_known_no_more(server, grid):
    with Connection(server.addresses.fleet) as connection:
        node = connection.join()
        assert connection.join() == node
        assert connection.beat()
        assert nodes(grid) == [node]
        connection.leave()
        with pytest.raises(grpc.RpcError, match="Invalid node ID"):
            connection.beat()
        assert list(grid.get_node_ids()) == []


def test_a_node_comes_back_when_the_server_fell_and_was_started_again(server, grid):
    connection = Telling(server.addresses.fleet)
    with serving(lambda: connection, echo, rng=random.Random(1)):
        (node,) = nodes(grid)
        assert ask(grid, node)[node].has_content()
        server.kill()
        before = connection.answered
        server.start()
        until(lambda: connection.answered > before)  # the server's database has the node in it all the time
        assert nodes(grid) == [node]
        assert ask(grid, node)[node].has_content()
    until(lambda: not list(grid.get_node_ids()))


def test_a_node_comes_back_to_a_server_that_has_forgotten_everything(served, server, grid):
    with served(echo, rng=random.Random(2)):
        nodes(grid)
        server.kill()
        server.forget()
        server.start()
        another = server.grid()
        (node,) = nodes(another)
        assert ask(another, node)[node].has_content()
        another.close()


@pytest.mark.parametrize(
    ("told", "seconds"),
    [(None, 0.0), ("2.5", 2.5), ("inf", LONGEST_POLL_SECONDS), ("nan", 0.0), ("-1", 0.0), ("soon", 0.0)],
)
def test_no_server_can_have_a_node_poll_never_again(told, seconds):
    assert seconds_told(told) == seconds


@pytest.mark.parametrize("told", ["inf", "nan", "-1", "abc", "1e-9", "0", "1e9", "", None])
def test_a_hostile_servers_heartbeat_header_neither_stops_nor_floods_a_client(told):
    assert heartbeat_told(told, 10.0) == 10.0


def test_a_servers_heartbeat_header_is_heard_within_its_bounds():
    assert heartbeat_told("2.5", 10.0) == 2.5
