"""The ledger: what it counts, whom it sets aside for how long, and that it survives being written down."""

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_server.rounds.clients.client_history import LONGEST, Ledger
from fl_server.rounds.clients.selection import in_turn


def test_replies_are_counted_by_client_and_reason():
    ledger = Ledger()
    ledger.asked([1, 2], 1)
    ledger.good(1, "train")
    ledger.good(1, "evaluate")
    ledger.rejected(2, "train", "late")
    ledger.rejected(2, "evaluate", "late")
    ledger.rejected(2, "train", "shape")
    assert (ledger.entries[1].asked, ledger.entries[1].rounds, ledger.entries[1].rejected) == (1, 1, {})
    assert ledger.entries[2].rejected == {"late": 2, "shape": 1}
    assert (ledger.failures(2, "train"), ledger.failures(2, "evaluate"), ledger.failures(9, "train")) == (2, 1, 0)


def test_time_aside_doubles_up_to_its_limit_and_one_good_reply_makes_all_good():
    ledger, spans = Ledger(), []
    for _ in range(8):
        ledger.rejected(1, "train", "error")
        spans.append(ledger.set_aside(1, 10, 2) - 10)
    assert spans == [2, 4, 8, 16, 32, 64, LONGEST, LONGEST]
    ledger.good(1, "train")
    assert ledger.set_aside(1, 10, 2) == 12


def test_training_well_does_not_make_up_for_evaluations_that_fail():
    ledger = Ledger()
    for _ in range(3):
        ledger.good(1, "train")
        ledger.rejected(1, "evaluate", "late")
    assert ledger.failures(1, "evaluate") == 3


def test_who_is_aside_is_told_soonest_back_first_and_is_back_once():
    ledger = Ledger()
    ledger.set_aside(1, 5, 4)
    ledger.set_aside(2, 5, 1)
    assert ledger.aside(6) == {2: 6, 1: 9}
    assert list(ledger.aside(6)) == [2, 1]
    assert ledger.back(6) == []
    assert (ledger.back(7), ledger.back(7)) == ([2], [])
    assert ledger.aside(7) == {1: 9}


def test_a_ledger_is_the_same_after_it_was_written_down():
    ledger = Ledger()
    ledger.asked([2**63 + 1, 2], 4)
    ledger.rejected(2**63 + 1, "train", "norm")
    ledger.set_aside(2**63 + 1, 4, 2)
    again = Ledger.of(json.loads(json.dumps(ledger.notes())))
    assert again.entries == ledger.entries
    assert again.aside(5) == ledger.aside(5)


def test_of_a_large_population_only_those_that_fail_are_entered():
    ledger = Ledger(everyone=False)
    ledger.asked(range(10), 1)
    ledger.good(3, "train")
    ledger.rejected(4, "train", "late")
    assert set(ledger.entries) == {4}
    ledger.good(4, "train")
    assert (ledger.entries[4].rounds, ledger.failures(4, "train")) == (1, 0)


def test_nothing_is_written_where_nothing_has_changed():
    ledger = Ledger(everyone=False)
    ledger.asked(range(10), 1)
    ledger.good(3, "train")
    assert not ledger.changed


@settings(max_examples=60)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 5))
def test_no_client_gets_two_turns_ahead_of_another(clients, size, seed):
    ledger, nodes = Ledger(), list(range(100, 100 + clients))
    draw = in_turn(ledger.turn)
    for number in range(1, 20):
        places = draw(nodes, min(size, clients), np.random.default_rng([seed, number]))
        assert places == sorted(set(places))
        ledger.asked([nodes[place] for place in places], number)
        turns = [ledger.turn(node)[1] for node in nodes]
        assert max(turns) - min(turns) <= 1
