"""Who did not take part, and what all do wrong alike: a run says the one at its end, and ends at once for the other."""

import pytest
from flwr.app import Error, Message

import strategies
from fl_common.errors import RoundError
from fl_common.settings.schema import Settings
from fl_server.rounds import report
from fl_server.rounds.clients.client_history import ClientHistory
from fl_server.rounds.loop import Rounds
from fl_server.rounds.state import State
from fl_server.store.runs import Run
from tests.support.in_process_grid import lost
from tests.support.small_rounds import MODEL, events, grid, is_train, run, steady

ONCE = {"aside_after": 0, "max_repeats": 3}


def failing(reason, when=lambda message: True):
    def answer(message):
        if when(message):
            return Message(Error(code=2, reason=reason), reply_to=message)
        return steady()(message)

    return answer


def summary(directory, over, **changes):
    """Run a federation and return what its last event says of those who took part."""
    settings = Settings(**({"rounds": 2, "min_clients": 1, "fraction_evaluate": 0.0} | ONCE | changes))
    made = Run.create(directory, settings)
    with made.lock():
        rounds = Rounds(over, strategies.make(settings), settings, made)
        rounds.run(State(MODEL))
    return rounds.took_part() | {"gaps": report.gaps(made.rounds())}


def test_a_run_in_which_all_take_part_has_nothing_to_say(tmp_path):
    assert summary(tmp_path, grid(3)) == {"absent": [], "never_joined": 0, "gaps": 0}


def test_a_client_that_never_took_part_is_named_with_what_went_wrong(tmp_path):
    found = summary(tmp_path, grid(3, x2=failing("ValueError: rows")))
    assert found["absent"] == [{"client": 1, "node": "2", "reasons": {"error": 2}}]
    assert found["gaps"] == 0


def test_rounds_with_less_than_half_of_those_asked_are_gaps(tmp_path):
    found = summary(tmp_path, grid(5, x1=failing("A"), x2=failing("B"), x3=lost))
    assert found["gaps"] == 2
    assert [each["client"] for each in found["absent"]] == [0, 1, 2]


def test_partitions_that_nobody_ever_held_are_counted(tmp_path):
    assert summary(tmp_path, grid(2), partitions=5)["never_joined"] == 3


def test_how_many_replied_is_shown_and_is_in_no_log(tmp_path, monkeypatch):
    monkeypatch.setattr("fl_server.rounds.loop.REPLIED_SECONDS", 0.0)
    settings = Settings(rounds=1, min_clients=1, fraction_evaluate=0.0)
    made, shown = Run.create(tmp_path, settings), []
    with made.lock():
        Rounds(grid(3), strategies.make(settings), settings, made, observe=shown.append).run(State(MODEL))
    counted = [(event["replies"], event["cohort"]) for event in shown if event["event"] == "replied"]
    assert counted == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert events(made, "replied") == []


def test_surplus_clients_are_no_gap():
    assert report.gaps([{"replies": 2, "cohort": 5, "surplus": 2}, {"replies": 1, "cohort": 5, "surplus": 2}]) == 1


def test_a_client_of_a_large_simulation_that_trained_before_it_failed_did_take_part():
    history = ClientHistory(everyone=False)
    history.good(7, "train")
    history.rejected(7, "train", "error")
    history.rejected(8, "train", "error")
    assert history.never_trained() == {8: {"error": 1}}


@pytest.mark.parametrize("phase", ["train", "evaluate"])
def test_a_mistake_that_every_client_makes_alike_ends_the_run_at_once(tmp_path, phase):
    def wrong(number):
        return failing(f"KeyError in partition {number}", lambda message: is_train(message) == (phase == "train"))

    over = grid(3, **{f"x{number}": wrong(number) for number in (1, 2, 3)})
    with pytest.raises(RoundError, match="every client failed alike in round 1, so it is not repeated: KeyError"):
        run(tmp_path, over, fraction_evaluate=1.0, **ONCE)
    assert events(Run.open(tmp_path), "repeat") == []
    assert len(events(Run.open(tmp_path), "rejected")) == 3


def test_mistakes_that_differ_or_may_pass_are_tried_again(tmp_path):
    for name, nodes in {
        "differ": {"x1": failing("KeyError: a"), "x2": failing("ValueError: b")},
        "pass": {"x1": lost, "x2": lost},
        "alone": {"x1": failing("KeyError: a")},
    }.items():
        with pytest.raises(RoundError, match="missed its quorum"):
            run(tmp_path / name, grid(len(nodes), **nodes), **ONCE | {"max_repeats": 1, "wait_seconds": 1.0})
