"""The stream of replies: each message gives one answer, at the deadline at the latest, and late ones are let go."""

import random

import pytest
from flwr.app import Message, MessageType, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_server.rounds.exchange import LONGEST_PAUSE, SHORTEST_PAUSE, Stream
from tests.support.in_process_grid import InProcessGrid, Late, lost


class Clock:
    simulated = False

    def __init__(self):
        self.time, self.pauses = 0.0, []

    def now(self):
        return self.time

    def sleep(self, seconds):
        self.pauses.append(seconds)
        self.time += seconds


def echo(message):
    return Message(RecordDict(), reply_to=message)


def late(polls):
    return lambda message: Late(echo(message), polls)


def silent(message):
    return None


def messages(nodes):
    return [Message(RecordDict(), dst_node_id=node, message_type=MessageType.TRAIN) for node in nodes]


def answers(grid, nodes, *, deadline=10.0, clock=None):
    clock = clock or Clock()
    return list(Stream(grid, messages(nodes), deadline=deadline, clock=clock))


def test_every_message_has_one_answer():
    found = answers(InProcessGrid({1: echo, 2: echo, 3: echo}), [1, 2, 3])
    assert [answer.node for answer in found] == [1, 2, 3]
    assert all(answer.reply is not None for answer in found)


def test_messages_are_sent_before_the_first_answer_is_asked_for():
    grid = InProcessGrid({1: echo})
    Stream(grid, messages([1]), deadline=1)
    assert len(grid.sent) == 1


def test_replies_come_in_the_order_of_arrival():
    grid = InProcessGrid({1: late(9), 2: echo, 3: late(3)})
    assert [answer.node for answer in answers(grid, [1, 2, 3])] == [2, 3, 1]


def test_who_never_answers_is_given_up_at_the_deadline():
    clock = Clock()
    found = answers(InProcessGrid({1: echo, 2: silent}), [1, 2], deadline=3.0, clock=clock)
    assert [(answer.node, answer.reply is None) for answer in found] == [(1, False), (2, True)]
    assert 3.0 <= clock.time <= 3.0 + LONGEST_PAUSE
    assert found[1].seconds >= 3.0


def test_a_reply_after_the_deadline_is_never_asked_for():
    grid = InProcessGrid({1: late(10_000)})
    assert answers(grid, [1], deadline=1.0)[0].reply is None
    assert answers(InProcessGrid({1: late(3)}), [1], deadline=1.0)[0].reply is not None


def test_a_message_that_could_not_be_sent_is_answered_at_once():
    clock = Clock()
    found = answers(InProcessGrid({1: echo}), [1, 99], clock=clock)
    assert [(answer.node, answer.lost) for answer in found] == [(99, True), (1, False)]
    assert clock.time == 0


def test_a_grid_that_sends_nothing_gives_no_reply_but_all_answers():
    class Full(InProcessGrid):
        def push_messages(self, messages):
            return []  # what Flower's grid returns where the server has no room

    assert [answer.node for answer in answers(Full({1: echo, 2: echo}), [1, 2])] == [1, 2]


def test_an_error_that_the_superlink_sends_is_mapped_back_to_its_node():
    (found,) = answers(InProcessGrid({7: lost}), [7])
    assert found.reply.metadata.src_node_id == 1
    assert (found.node, found.reply.error.reason) == (7, "Node unavailable.")


def test_a_reply_to_another_message_is_dropped():
    def confused(message):
        reply = echo(message)
        reply.metadata.__dict__["_reply_to_message_id"] = "other"
        return reply

    found = answers(InProcessGrid({1: confused, 2: echo}), [1, 2], deadline=1.0)
    assert [(answer.node, answer.reply is None) for answer in found] == [(2, False), (1, True)]


def test_no_messages_give_no_answers():
    assert answers(InProcessGrid({}), []) == []


def test_pauses_grow_with_the_wait_and_stay_in_their_bounds():
    clock = Clock()
    answers(InProcessGrid({1: silent}), [1], deadline=60.0, clock=clock)
    *pauses, last = clock.pauses  # the last one ends at the deadline
    assert pauses == sorted(pauses)
    assert last <= pauses[-1]
    assert (pauses[0], pauses[-1]) == (SHORTEST_PAUSE, LONGEST_PAUSE)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["echo", "late", "silent", "lost", "gone"]), max_size=8), st.integers(0, 99))
def test_whatever_nodes_do_each_is_answered_for_once(kinds, seed):
    known = {"echo": echo, "late": late(5), "silent": silent, "lost": lost}
    nodes = {number: known[kind] for number, kind in enumerate(kinds, 10) if kind != "gone"}
    found = answers(InProcessGrid(nodes, rng=random.Random(seed)), range(10, 10 + len(kinds)), deadline=2.0)
    assert sorted(answer.node for answer in found) == list(range(10, 10 + len(kinds)))
    silent_ones = {number for number, kind in enumerate(kinds, 10) if kind in ("silent", "gone")}
    assert {answer.node for answer in found if answer.reply is None} == silent_ones


def test_a_failing_grid_is_not_hidden():
    class Broken(InProcessGrid):
        def pull_messages(self, message_ids):
            raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        answers(Broken({1: echo}), [1])
