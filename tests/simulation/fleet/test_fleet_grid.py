"""The fleet's grid: replies arrive in the order of the fleet's time, and what nobody takes is not made."""

import json
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fl_common.messages.arrays import encode
from fl_common.messages.group_reply import Member, Together
from fl_server.rounds.exchange import Answer, Stream
from fl_server.superlink.grid.pulling import discard
from fl_simulation.fleet.fleet import Fleet
from fl_simulation.fleet.fleet_grid import FleetGrid
from fl_simulation.flower.client_apps import ClientAppEngine

PLAIN = Fleet(speed=1, speed_spread=0)
EXAMPLES = {1: 30, 2: 10, 3: 20, 4: 40}


def asked(nodes: Sequence[int], number: int = 1) -> list[Message]:
    content = RecordDict(
        {"arrays": encode({"w": np.zeros(1, np.float32)}), "config": ConfigRecord({"server-round": number})}
    )
    return [Message(content, node, MessageType.TRAIN, ttl=1000.0) for node in nodes]


def sizes(messages: Sequence[Message]) -> list[int]:
    return [EXAMPLES[message.metadata.dst_node_id] for message in messages]


class Engine:
    """Answers in the order of the messages turned around, or with one reply for all, and takes down who was asked."""

    def __init__(self, *, together: bool = False) -> None:
        self.made: list[int] = []
        self._together = together

    def answer(self, messages: Sequence[Message]) -> Iterator[Message]:
        self.made += [message.metadata.dst_node_id for message in messages]
        if self._together and messages:
            members = [Member(message.metadata.message_id, 1, {}) for message in messages]
            yield Together(RecordDict(), messages[0], members)
            return
        for message in reversed(messages):
            yield Message(RecordDict(), reply_to=message)


def grid_of(engine: Engine, fleet: Fleet = PLAIN) -> FleetGrid:
    return FleetGrid(4, engine, fleet, sizes=sizes)


def stream(grid: FleetGrid, nodes: Sequence[int] = (1, 2, 3, 4), **more: float) -> Stream:
    return Stream(grid, asked(nodes), clock=grid.clock, **({"deadline": 600.0} | more))


def times(answers: Iterator[Answer]) -> list[tuple[int, float, bool]]:
    return [(answer.node, answer.seconds, answer.reply is not None) for answer in answers]


def test_replies_come_in_the_order_of_their_arrival_whatever_the_order_they_are_made_in():
    grid = grid_of(Engine())
    assert times(stream(grid)) == [(2, 10, True), (3, 20, True), (1, 30, True), (4, 40, True)]
    assert grid.clock.now() == 40


def test_what_would_be_late_is_not_made_and_counts_as_late():
    grid = grid_of(engine := Engine())
    assert times(stream(grid, deadline=25)) == [(2, 10, True), (3, 20, True), (1, 25, False), (4, 25, False)]
    assert engine.made == [2, 3]
    assert grid.clock.now() == 25


def test_of_too_many_only_the_first_are_made_and_the_clock_stands_at_the_last_of_them():
    grid = grid_of(engine := Engine())
    answers = stream(grid, enough=2)
    assert [next(answers).node, next(answers).node] == [2, 3]
    left = answers.close()
    assert (engine.made, grid.clock.now()) == ([2, 3], 20)
    assert discard(grid, left) == {}
    grid.clock.sleep(10)
    assert list(discard(grid, left).values()) == [True]
    assert engine.made == [2, 3]


def test_one_that_is_taken_in_place_of_a_rejected_reply_is_made_when_it_is_asked_for():
    grid = grid_of(engine := Engine())
    answers = stream(grid, enough=2)
    assert [next(answers).node for _ in range(3)] == [2, 3, 1]
    assert engine.made == [2, 3, 1]


def test_a_reply_that_stands_for_many_arrives_with_the_last_of_them():
    grid = grid_of(engine := Engine(together=True))
    (answer,) = stream(grid, nodes=(1, 2, 3), deadline=100)
    assert (answer.seconds, sorted(answer.nodes), engine.made) == (30, [1, 2, 3], [2, 3, 1])


def test_a_client_that_drops_out_is_not_trained_and_the_server_hears_of_it_when_its_heartbeats_are_missed():
    grid = grid_of(engine := Engine(), Fleet(speed=1, speed_spread=0, dropout=0.999))
    answers = list(stream(grid))
    assert engine.made == []
    assert all(answer.lost and answer.reply is not None and answer.reply.has_error() for answer in answers)
    assert all(20 <= answer.seconds <= 20 + EXAMPLES[answer.node] for answer in answers)


def test_a_loss_that_is_heard_of_after_the_deadline_is_a_late_reply():
    grid = grid_of(Engine(), Fleet(speed=1, speed_spread=0, dropout=0.999))
    assert times(stream(grid, deadline=15)) == [(1, 15, False), (2, 15, False), (3, 15, False), (4, 15, False)]


def test_a_client_that_is_still_at_work_begins_the_next_message_when_it_is_done():
    grid = grid_of(Engine())
    answers = stream(grid, enough=1)
    next(answers)
    answers.close()
    assert times(stream(grid, nodes=(4, 1))) == [(1, 50, True), (4, 70, True)]


def test_clients_of_any_app_tell_by_their_replies_how_long_they_took():
    app = ClientApp()
    called: list[int] = []

    @app.train()
    def train(message: Message, context: Context) -> Message:
        called.append(context.node_id)
        metrics = MetricRecord({"num-examples": EXAMPLES[context.node_id]})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    grid = FleetGrid(4, ClientAppEngine(app, 4), PLAIN)
    found = times(stream(grid, deadline=25))
    assert found == [(2, 10, True), (3, 20, True), (1, 25, False), (4, 25, False)]
    assert sorted(called) == [1, 2, 3, 4]


def test_flowers_own_way_of_asking_waits_in_the_fleets_time():
    grid = grid_of(engine := Engine())
    replies = grid.send_and_receive(asked([1, 2, 3, 4]), timeout=35)
    assert [reply.metadata.src_node_id for reply in replies] == [2, 3, 1]
    assert grid.clock.now() == 35
    assert len(list(grid.send_and_receive(asked([1, 2])))) == 2
    assert engine.made == [2, 3, 1, 2, 1]


def test_nodes_are_those_who_are_there_at_the_hour():
    fleet = Fleet(peak=0.9, trough=0.1)
    grid = FleetGrid(1000, Engine(), fleet)
    day = grid.get_node_ids()
    assert grid.get_node_ids() is day
    grid.clock.sleep(12 * 3600)
    night = grid.get_node_ids()
    assert len(day) > 850
    assert 50 < len(night) < 150
    assert night == (np.flatnonzero(fleet.present(1000, 12)) + 1).tolist()


@pytest.mark.parametrize("together", [False, True])
def test_a_round_in_which_all_are_late_ends_at_its_deadline(together: bool):
    grid = grid_of(engine := Engine(together=together))
    assert times(stream(grid, deadline=5)) == [(1, 5, False), (2, 5, False), (3, 5, False), (4, 5, False)]
    assert engine.made == []


def test_what_is_on_its_way_outlasts_a_checkpoint():
    engine = Engine()
    grid, again = grid_of(engine), grid_of(engine)
    grid.expect(deadline=600.0, enough=1)
    identities = grid.push_messages(asked([1, 2, 4]))
    assert [reply.metadata.src_node_id for reply in grid.pull_messages(identities)] == [2]
    again.clock.forward(grid.clock.now())
    again.restore(json.loads(json.dumps(grid.notes())))
    for each in (grid, again):
        each.clock.forward(30)
        assert discard(each, identities) == {identities[0]: True}
        each.expect(deadline=600.0, enough=0)
        late = each.push_messages(asked([4], 2))
        assert late[0] not in identities
        assert [reply.metadata.src_node_id for reply in each.pull_messages(late)] == [4]
        assert each.clock.now() == 80  # at work until 40, on the message before
