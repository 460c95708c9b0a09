"""Mailboxes: a poll may be spared the database only while nothing was put in, whatever overlaps."""

from hypothesis import given
from hypothesis import strategies as st

from fl_server.superlink.fleet.polls import Mailboxes

NODE = 7


def test_a_box_that_nobody_looked_into_is_not_known_to_be_empty():
    assert not Mailboxes().is_empty(NODE)


def test_a_box_that_was_found_empty_is_empty_until_the_next_message():
    boxes = Mailboxes()
    boxes.found_empty(NODE, boxes.look(NODE))
    assert boxes.is_empty(NODE)
    boxes.filled(NODE)
    assert not boxes.is_empty(NODE)
    boxes.found_empty(NODE, boxes.look(NODE))
    assert boxes.is_empty(NODE)


def test_another_nodes_message_changes_nothing():
    boxes = Mailboxes()
    boxes.found_empty(NODE, boxes.look(NODE))
    boxes.filled(8)
    assert boxes.is_empty(NODE)
    assert not boxes.is_empty(8)


def test_a_message_that_comes_during_a_look_that_misses_it_is_not_forgotten():
    boxes = Mailboxes()
    look = boxes.look(NODE)
    boxes.filled(NODE)
    boxes.found_empty(NODE, look)
    assert not boxes.is_empty(NODE)


@given(st.lists(st.sampled_from(["put", "begin", "end"]), max_size=30))
def test_no_box_with_a_message_in_it_is_ever_said_to_be_empty(steps):
    """Looks overlap with messages that are put in: each look takes out what is there when it is taken."""
    boxes, waiting, looks = Mailboxes(), 0, []
    for step in steps:
        if step == "put":
            waiting += 1
            boxes.filled(NODE)
        elif step == "begin":
            looks.append((boxes.look(NODE), waiting))
            waiting = 0
        elif looks:
            look, found = looks.pop(0)
            if not found:
                boxes.found_empty(NODE, look)
        assert not (waiting and boxes.is_empty(NODE))
