"""Rounds that always end: too many asked, some lost, some late, some never there; whatever happens, the run goes on."""

import json
import shutil
from itertools import chain

import numpy as np
import pytest
from flwr.app import Message, RecordDict

from fl_cli.words import DESCRIBE
from fl_common.errors import RoundError
from fl_common.tasks.client_data.data_names import Schema
from fl_server.store.runs import CLIENTS, Run
from tests.support.in_process_grid import Late, lost
from tests.support.small_rounds import Watched, answer, events, grid, is_train, resume, run, steady


def late(polls, step=1.0):
    return lambda message: Late(answer(message, step), polls)


def silent(message):
    return None


def failing(message):
    return Message(RecordDict(), reply_to=message)


# ---- over-selection


def test_more_are_asked_than_are_taken_and_the_first_make_the_model(tmp_path):
    over = grid(6, x2=late(9, 100.0), x5=late(9, 100.0))
    state, made = run(tmp_path / "run", over, clients_per_round=4, over_selection=1.5)
    (event,) = made.rounds()
    assert (event["cohort"], event["replies"], event["surplus"], event["rejected"]) == (6, 4, 2, 0)
    assert state.arrays["w"].tolist() == [1.0] * 3
    assert events(made, "rejected") == []


def test_a_surplus_reply_is_dropped_when_it_comes_and_is_no_failure(tmp_path):
    over = grid(6, x2=late(3, 100.0))
    state, made = run(tmp_path / "run", over, rounds=4, clients_per_round=5, over_selection=1.2)
    dropped = events(made, "dropped")
    assert {(each["node"], each["reason"], each["phase"]) for each in dropped} == {("2", "surplus", "train")}
    assert dropped[0]["round"] == 1
    assert state.arrays["w"].tolist() == [4.0] * 3  # 100 entered no round, neither its own nor a later one
    assert json.loads((tmp_path / "run" / CLIENTS).read_text())["2"]["rejected"] == {}


def test_who_is_still_at_work_is_not_asked_again_while_others_are_enough(tmp_path):
    over = grid(6, x1=silent, x2=silent)
    run(tmp_path / "run", over, rounds=2, clients_per_round=4, over_selection=1.5)
    assert over.cohorts == {1: [1, 2, 3, 4, 5, 6], 2: [3, 4, 5, 6]}


def test_over_selection_takes_what_it_can_get_where_there_are_not_so_many(tmp_path):
    _, made = run(tmp_path / "run", grid(5), clients_per_round=4, over_selection=2.0)
    (event,) = made.rounds()
    assert (event["cohort"], event["replies"], event["surplus"]) == (5, 4, 1)


@pytest.mark.parametrize("name", ["FedAvg", "FedMedian"])
def test_flowers_own_strategies_are_over_selected_too(tmp_path, name):
    over = grid(6, x2=late(9, 100.0))
    options = {"strategy": f"flwr.serverapp.strategy:{name}", "clients_per_round": 5, "over_selection": 1.2}
    state, made = run(tmp_path / "run", over, **options)
    assert (made.rounds()[0]["cohort"], made.rounds()[0]["replies"]) == (6, 5)
    assert state.arrays["w"].tolist() == [1.0] * 3


def test_an_evaluation_is_over_selected_too(tmp_path):
    over = grid(6, x6=lambda message: answer(message) if is_train(message) else None)
    options = {"fraction_evaluate": 5 / 6, "over_selection": 1.2}
    _, made = run(tmp_path / "run", over, **options)
    assert made.rounds()[0]["evaluated_on"] == "clients"
    assert events(made, "rejected") == []


# ---- the lost


def test_another_client_is_asked_in_the_place_of_one_that_is_lost(tmp_path):
    over = grid(4)
    asked = []

    def one_is_lost(message):
        asked.append(message)
        return lost(message) if len(asked) == 1 else answer(message)

    over.nodes = dict.fromkeys(over.nodes, one_is_lost)
    _, made = run(tmp_path / "run", over, clients_per_round=2)
    (event,) = made.rounds()
    assert (event["cohort"], event["replies"], event["rejected"]) == (3, 2, 1)
    assert [each["reason"] for each in events(made, "rejected")] == ["lost"]
    assert len(set(over.cohorts[1])) == 3
    assert events(made, "repeat") == []


def test_a_client_that_fails_is_replaced_only_where_the_quorum_needs_it(tmp_path):
    for quorum, cohort in ((1, 2), (2, 3)):
        over, asked = grid(4), []

        def first_fails(message, asked=asked):
            asked.append(message)
            return failing(message) if len(asked) == 1 else answer(message)

        over.nodes = dict.fromkeys(over.nodes, first_fails)
        _, made = run(tmp_path / str(quorum), over, clients_per_round=2, quorum=quorum)
        assert made.rounds()[0]["cohort"] == cohort


def test_stand_ins_do_not_change_the_bits_whatever_the_order_of_arrival(tmp_path):
    found = set()
    for polls in ((0, 5, 2), (5, 0, 1), (1, 2, 9)):
        steps = {1: 0.1, 2: 1e6, 3: -1e6 / 7}
        nodes = {node: late(wait, steps[node]) for node, wait in zip(steps, polls, strict=True)}
        over = Watched({4: lost, **nodes})
        state, _ = run(tmp_path / str(polls), over, clients_per_round=3, seed=1)
        found.add(state.arrays["w"].tobytes())
    assert len(found) == 1


def test_a_quorum_that_cannot_be_reached_any_more_is_not_waited_for(tmp_path):
    over = grid(2, x1=lost, x2=silent)
    with pytest.raises(RoundError, match="missed its quorum 1 times"):
        run(tmp_path / "run", over, quorum=2, max_repeats=0, deadline_seconds=10_000)


# ---- the late


class BehindByOne:
    """A client whose answer is there only when the next message comes."""

    def __init__(self, over):
        self.over, self.before = over, ""

    def __call__(self, message):
        if self.before in self.over._answers:
            self.over._answers[self.before] = (self.over._answers[self.before][0], 0)
        self.before = message.metadata.message_id
        return Late(answer(message, 1000.0), 10**9)


def test_a_late_reply_touches_no_later_round(tmp_path):
    over = grid(3)
    over.nodes[3] = BehindByOne(over)
    state, made = run(tmp_path / "run", over, rounds=4, min_clients=3, deadline_seconds=0.2, aside_after=0, quorum=2)
    dropped = events(made, "dropped")
    assert [(each["round"], each["client"], each["reason"]) for each in dropped] == [(n, 2, "late") for n in (1, 2, 3)]
    assert all(each["seconds"] >= 0.2 for each in dropped)
    assert state.arrays["w"].tolist() == [4.0] * 3
    assert [each["reason"] for each in events(made, "rejected")] == ["late"] * 4


def test_a_repeat_with_others_drops_what_comes_to_the_first_attempt(tmp_path):
    over = Watched({1: lost, 2: late(3, 1000.0)})

    def healed(message):
        over.nodes = {1: steady(), 2: late(3, 1000.0)}
        return lost(message)

    over.nodes[1] = healed
    state, made = run(tmp_path / "run", over, rounds=3, quorum=2, max_repeats=5)
    assert len(events(made, "repeat")) == 1
    (dropped,) = events(made, "dropped")
    assert (dropped["reason"], dropped["attempt"], dropped["round"]) == ("repeat", 1, 1)
    assert state.arrays["w"].tolist() == [1501.5] * 3  # three rounds of the mean of 1 and 1000, and not one more reply


def test_training_and_evaluation_have_a_deadline_each(tmp_path):
    over = grid(2, x2=lambda message: answer(message) if is_train(message) else None)
    options = {"fraction_evaluate": 1.0, "deadline_seconds": 10_000, "evaluate_deadline_seconds": 0.2}
    _, made = run(tmp_path / "run", over, **options)
    assert [(each["phase"], each["reason"]) for each in events(made, "rejected")] == [("evaluate", "late")]


# ---- the quorum


def test_a_share_of_the_cohort_is_a_quorum_as_well(tmp_path):
    over = grid(10, x1=failing, x2=failing)
    _, made = run(tmp_path / "enough", over, quorum_share=0.8)
    assert made.rounds()[0]["replies"] == 8
    with pytest.raises(RoundError, match=r"missed its quorum 2 times; 0 rounds are committed\..*fl resume"):
        run(tmp_path / "missed", grid(10, x1=failing, x2=failing), quorum_share=0.81, max_repeats=1)
    (first, second) = events(Run.open(tmp_path / "missed"), "repeat")
    assert "0 good replies of 10 asked, and at most 8 more can come; the quorum is 9" in first["reason"]
    assert second["attempt"] == 2


def test_a_missed_quorum_is_repeated_with_other_clients(tmp_path):
    over, asked = grid(4), []

    def first_two_are_silent(message):
        asked.append(message.metadata.dst_node_id)
        return None if len(asked) <= 2 else answer(message)

    over.nodes = dict.fromkeys(over.nodes, first_two_are_silent)
    _, made = run(tmp_path / "run", over, clients_per_round=2, quorum=2, deadline_seconds=0.3)
    (repeat,) = events(made, "repeat")
    assert (repeat["round"], repeat["attempt"]) == (1, 1)
    assert "0 good replies of 2 asked; the quorum is 2" in repeat["reason"]
    assert len(set(asked)) == 4
    assert (made.rounds()[0]["replies"], made.rounds()[0]["cohort"]) == (2, 2)


def test_a_run_that_ends_for_want_of_a_quorum_keeps_its_rounds_and_goes_on_from_them(tmp_path):
    over = grid(3)

    def until_round_3(message):
        return lost(message) if message.content["config"]["server-round"] == 3 else answer(message)

    over.nodes = dict.fromkeys(over.nodes, until_round_3)
    with pytest.raises(RoundError, match="round 3 missed its quorum 4 times; 2 rounds are committed"):
        run(tmp_path / "run", over, rounds=4, quorum=2)
    history = json.loads((tmp_path / "run" / CLIENTS).read_text())
    assert sum(entry["rejected"].get("lost", 0) for entry in history.values()) == len(
        events(Run.open(tmp_path / "run"), "rejected")
    )
    assert Run.open(tmp_path / "run").latest().round == 2
    assert resume(tmp_path / "run", grid(3)).arrays["w"].tolist() == [4.0] * 3


# ---- set aside


def test_a_client_that_keeps_failing_is_set_aside_for_longer_each_time_and_comes_back(tmp_path):
    over = grid(3, x3=failing)
    _, made = run(tmp_path / "run", over, rounds=14, aside_after=2, aside_rounds=2)
    took_part = [number for number, nodes in over.cohorts.items() if 3 in nodes]
    assert took_part == [1, 2, 5, 10]  # two failures, two rounds aside, one failure, four aside, one failure, eight
    told = events(made, "aside")
    assert [(each["client"], each["round"], each["until_round"]) for each in told] == [
        (2, 2, 4),
        (2, 5, 9),
        (2, 10, 18),
    ]
    assert told[0]["failures"] == 2
    assert told[-1]["reasons"] == {"empty": 4}
    assert [(each["round"], each["node"]) for each in events(made, "back")] == [(5, "3"), (10, "3")]
    kept = json.loads((tmp_path / "run" / CLIENTS).read_text())
    assert (kept["3"]["rejected"], kept["3"]["aside_until_round"], kept["3"]["rounds"]) == ({"empty": 4}, 18, 0)
    assert (kept["1"]["rounds"], kept["1"]["rejected"]) == (14, {})


def test_a_good_reply_makes_up_for_failures_before_it(tmp_path):
    over = grid(3, x3=lambda message: (failing if message.content["config"]["server-round"] % 2 else answer)(message))
    _, made = run(tmp_path / "run", over, rounds=8, aside_after=2)
    assert events(made, "aside") == []


def test_a_round_is_formed_with_those_set_aside_where_others_are_not_enough(tmp_path):
    over = grid(4, x4=failing)
    over.nodes[2] = lambda message: (over.nodes.pop(2), answer(message))[1]  # it leaves after the first round
    over.nodes[3] = lambda message: (failing if message.content["config"]["server-round"] == 1 else answer)(message)
    _, made = run(tmp_path / "run", over, rounds=6, quorum=2, aside_after=1, aside_rounds=9, max_repeats=0)
    assert over.cohorts == {1: [1, 2, 3, 4]} | {number: [1, 3] for number in range(2, 7)}
    assert len(made.rounds()) == 6


def test_nobody_is_set_aside_where_it_is_turned_off(tmp_path):
    over = grid(3, x3=failing)
    _, made = run(tmp_path / "run", over, rounds=6, aside_after=0)
    assert events(made, "aside") == []
    assert all(3 in nodes for nodes in over.cohorts.values())


def test_who_was_set_aside_is_remembered_by_a_resumed_run(tmp_path):
    whole = grid(3, x3=failing)
    run(tmp_path / "whole", whole, rounds=8, aside_after=2, aside_rounds=3)
    first, second = grid(3, x3=failing), grid(3, x3=failing)
    run(tmp_path / "run", first, rounds=3, aside_after=2, aside_rounds=3)
    resume(tmp_path / "run", second, rounds=8)
    assert first.cohorts | second.cohorts == whole.cohorts


# ---- whom


def test_fair_selection_asks_everyone_once_before_anyone_twice(tmp_path):
    over = grid(7)
    run(tmp_path / "run", over, rounds=14, selection="fair", clients_per_round=2, seed=5)
    turns = []
    for number in sorted(over.cohorts):
        turns += over.cohorts[number]
        counts = [turns.count(node) for node in range(1, 8)]
        assert max(counts) - min(counts) <= 1
    assert counts == [4] * 7


def test_fair_selection_depends_on_the_seed_and_survives_a_resume(tmp_path):
    def cohorts(name, **changes):
        over = grid(7)
        run(tmp_path / name, over, **{"rounds": 6, "selection": "fair", "clients_per_round": 3} | changes)
        return over.cohorts

    whole = cohorts("whole")
    assert cohorts("again") == whole
    assert cohorts("other", seed=1) != whole
    copy = shutil.copytree(tmp_path / "whole", tmp_path / "copy")
    for later in (4, 5, 6):
        shutil.rmtree(copy / "checkpoints" / f"{later:04d}")
    over = grid(7)
    resume(copy, over)
    assert over.cohorts == {number: whole[number] for number in (4, 5, 6)}


def test_flowers_own_strategies_ask_in_turn_too(tmp_path):
    over = grid(6)
    options = {"strategy": "flwr.serverapp.strategy:FedAvg", "clients_per_round": 2, "selection": "fair"}
    run(tmp_path / "run", over, rounds=3, **options)
    assert sorted(chain(*over.cohorts.values())) == [1, 2, 3, 4, 5, 6]


LABELS = {1: {"site": "berlin"}, 2: {"site": "bonn"}, 3: {"site": "berlin", "tier": "test"}, 4: {}}


@pytest.mark.parametrize(
    ("where", "nodes"),
    [("site=berlin", [1, 3]), ("site=berlin,tier!=test", [1]), ("site in (bonn, berlin)", [1, 2, 3]), ("!site", [4])],
)
def test_only_clients_with_the_right_labels_take_part(tmp_path, where, nodes):
    over = grid(4, labels=LABELS)
    _, made = run(tmp_path / "run", over, where=where, fraction_evaluate=1.0)
    assert over.cohorts == {1: nodes}
    assert {message.metadata.dst_node_id for message in over.sent} == set(nodes)
    assert made.latest().notes["leases"] == {str(node): slot for slot, node in enumerate(nodes)}


def test_waiting_says_how_many_clients_fit(tmp_path):
    over = grid(4, labels=LABELS)
    wanted = r"waited 0\.2 s for 3 clients with where='site=berlin'; 2 of the 4 that are connected fit"
    with pytest.raises(RoundError, match=wanted):
        run(tmp_path / "run", over, where="site=berlin", min_clients=3, wait_seconds=0.2)
    (event,) = events(Run.open(tmp_path / "run"), "waiting")
    assert (event["have"], event["need"], event["online"], event["where"]) == (2, 3, 4, "site=berlin")


def test_a_node_keeps_its_slot_across_a_resume_whoever_comes_first(tmp_path):
    run(tmp_path / "run", grid(3), rounds=1)
    over = Watched({node: steady() for node in (3, 2, 0)})  # node 1 is gone; 0, a new one, would sort before the others
    state = resume(tmp_path / "run", over, rounds=2)
    slots = {message.metadata.dst_node_id: message.content["config"]["client"] for message in over.sent}
    assert slots == {3: 2, 2: 1, 0: 0}
    assert state.leases == {"3": 2, "2": 1, "0": 0}


# ---- limits


def test_an_update_that_moves_the_model_too_far_is_rejected(tmp_path):
    over = grid(3, x3=steady(10.0))
    state, made = run(tmp_path / "run", over, max_update_norm=np.sqrt(3) + 1e-6)
    (event,) = events(made, "rejected")
    assert (event["node"], event["reason"]) == ("3", "norm")
    assert "got 17.3205" in event["detail"]
    assert state.arrays["w"].tolist() == [1.0] * 3


@pytest.mark.parametrize("loss", [-1.0, 1e9, float("nan")])
def test_a_metric_out_of_its_range_is_rejected_in_training_and_evaluation(tmp_path, loss):
    over = grid(3, x3=steady(loss=loss))
    _, made = run(tmp_path / "run", over, metric_limits="loss=0:100", fraction_evaluate=1.0)
    assert [(each["phase"], each["reason"]) for each in events(made, "rejected")] == [("train", "range")]
    over = grid(3, x3=lambda message: answer(message) if is_train(message) else answer(message, loss=loss))
    _, made = run(tmp_path / "other", over, metric_limits="loss=0:100", fraction_evaluate=1.0)
    assert [(each["phase"], each["reason"]) for each in events(made, "rejected")] == [("evaluate", "range")]


def shrinking(schemas=None):
    """Four clients, of which one leaves after the first round."""
    over = grid(4)
    if schemas is not None:
        over.schemas = schemas
    over.nodes[2] = lambda message: (over.nodes.pop(2), answer(message))[1]
    return over


def test_partitions_that_no_client_holds_are_said_in_each_round(tmp_path):
    _, made = run(tmp_path / "run", shrinking(), rounds=3)
    rounds = made.rounds()
    assert [(event.get("unused"), event.get("partitions")) for event in rounds] == [(None, None), (1, 4), (1, 4)]
    assert "1 of 4 partitions unused" in DESCRIBE["round"](rounds[1])


def test_where_all_clients_have_data_of_their_own_no_partition_is_unused(tmp_path):
    _, made = run(tmp_path / "run", shrinking(dict.fromkeys(range(1, 5), Schema())), rounds=2)
    assert [event.get("unused") for event in made.rounds()] == [None, None]
