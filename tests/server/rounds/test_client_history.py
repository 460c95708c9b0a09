"""The history: what it counts, whom it sets aside for how long, and that it survives being written down."""

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_server.rounds.clients.client_history import LONGEST, ClientHistory
from fl_server.rounds.clients.turns import in_turn


def test_replies_are_counted_by_client_and_reason():
    history = ClientHistory()
    history.asked([1, 2], 1)
    history.good(1, "train")
    history.good(1, "evaluate")
    history.rejected(2, "train", "late")
    history.rejected(2, "evaluate", "late")
    history.rejected(2, "train", "shape")
    assert (history.entries[1].asked, history.entries[1].rounds, history.entries[1].rejected) == (1, 1, {})
    assert history.entries[2].rejected == {"late": 2, "shape": 1}
    assert (history.failures(2, "train"), history.failures(2, "evaluate"), history.failures(9, "train")) == (2, 1, 0)


def test_time_aside_doubles_up_to_its_limit_and_one_good_reply_makes_all_good():
    history, spans = ClientHistory(), []
    for _ in range(8):
        history.rejected(1, "train", "error")
        spans.append(history.set_aside(1, 10, 2) - 10)
    assert spans == [2, 4, 8, 16, 32, 64, LONGEST, LONGEST]
    history.good(1, "train")
    assert history.set_aside(1, 10, 2) == 12


def test_training_well_does_not_make_up_for_evaluations_that_fail():
    history = ClientHistory()
    for _ in range(3):
        history.good(1, "train")
        history.rejected(1, "evaluate", "late")
    assert history.failures(1, "evaluate") == 3


def test_who_is_aside_is_told_soonest_back_first_and_is_back_once():
    history = ClientHistory()
    history.set_aside(1, 5, 4)
    history.set_aside(2, 5, 1)
    assert history.aside(6) == {2: 6, 1: 9}
    assert list(history.aside(6)) == [2, 1]
    assert history.back(6) == []
    assert (history.back(7), history.back(7)) == ([2], [])
    assert history.aside(7) == {1: 9}


def test_a_history_is_the_same_after_it_was_written_down():
    history = ClientHistory()
    history.asked([2**63 + 1, 2], 4)
    history.rejected(2**63 + 1, "train", "norm")
    history.set_aside(2**63 + 1, 4, 2)
    again = ClientHistory.of(json.loads(json.dumps(history.notes())))
    assert again.entries == history.entries
    assert again.aside(5) == history.aside(5)


def test_of_a_large_population_only_those_that_fail_are_entered():
    history = ClientHistory(everyone=False)
    history.asked(range(10), 1)
    history.good(3, "train")
    history.rejected(4, "train", "late")
    assert set(history.entries) == {4}
    history.good(4, "train")
    assert (history.entries[4].rounds, history.failures(4, "train")) == (1, 0)


def test_nothing_is_written_where_nothing_has_changed():
    history = ClientHistory(everyone=False)
    history.asked(range(10), 1)
    history.good(3, "train")
    assert not history.changed


@settings(max_examples=60)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 5))
def test_no_client_gets_two_turns_ahead_of_another(clients, size, seed):
    history, nodes = ClientHistory(), list(range(100, 100 + clients))
    draw = in_turn(history.turn)
    for number in range(1, 20):
        places = draw(nodes, min(size, clients), np.random.default_rng([seed, number]))
        assert places == sorted(set(places))
        history.asked([nodes[place] for place in places], number)
        turns = [history.turn(node)[1] for node in nodes]
        assert max(turns) - min(turns) <= 1
