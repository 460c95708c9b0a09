"""Whom a round asks and what each is told: the wait for clients, the view a strategy gets, the addressed messages."""

import json
import time

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, MessageType, RecordDict

from fl_common.errors import RoundError
from fl_common.messages.arrays import encode
from fl_common.settings.schema import Settings, parse
from fl_server.rounds.clients.leases import Leases
from fl_server.rounds.clients.waiting import wait_for_clients
from fl_server.rounds.cohort import LeasedGrid, address, configuration, quorum
from tests.support.in_process_grid import InProcessGrid


def silent(message):
    return None


class Clock:
    """Time that passes only while someone sleeps, and what happens meanwhile."""

    def __init__(self, *arrivals):
        self.time, self.arrivals = 100.0, list(arrivals)

    def now(self):
        return self.time

    def sleep(self, seconds):
        self.time += seconds
        while self.arrivals and self.time >= self.arrivals[0][0]:
            self.arrivals.pop(0)[1]()


def waiting(grid, clock, said, **settings):
    settings = Settings(**{"min_clients": 2, "wait_seconds": 5.0} | settings)
    return wait_for_clients(grid, Leases(), settings, announce=said.append, clock=clock)


def test_clients_that_are_there_are_not_waited_for():
    said = []
    leases = waiting(InProcessGrid({8: silent, 4: silent}), Clock(), said)
    assert (leases.nodes(), said) == ([4, 8], [])


def test_a_wait_ends_when_enough_have_come_and_says_so_only_when_something_changes():
    grid, said = InProcessGrid({}), []
    clock = Clock(
        (101.0, lambda: grid.nodes.update({3: silent})),
        (102.0, lambda: grid.nodes.update({5: silent})),
    )
    assert waiting(grid, clock, said).nodes() == [3, 5]
    assert [(event["event"], event["have"], event["need"]) for event in said] == [
        ("waiting", have, 2) for have in (0, 1, 2)
    ]
    assert 0.9 < said[1]["seconds"] < 1.2


def test_too_few_clients_end_in_an_error_at_the_time_limit():
    clock, said = Clock(), []
    with pytest.raises(RoundError) as caught:
        waiting(InProcessGrid({3: silent}), clock, said, min_clients=3)
    assert 5.0 <= clock.time - 100 < 5.5
    assert "waited 5 s for 3 clients; 1 came" in str(caught.value)
    assert "min_clients" in str(caught.value)


def test_a_wait_without_a_limit_lasts_until_they_come():
    grid = InProcessGrid({3: silent})
    clock = Clock((100_000.0, lambda: grid.nodes.update({5: silent})))
    clock.sleep = lambda seconds, step=clock.sleep: step(max(seconds, 50.0))
    assert waiting(grid, clock, [], wait_seconds=0).nodes() == [3, 5]


def test_a_client_that_leaves_while_waited_is_not_counted():
    grid = InProcessGrid({1: silent})
    clock = Clock((101.0, lambda: (grid.nodes.pop(1), grid.nodes.update({2: silent}))))
    with pytest.raises(RoundError, match="1 came"):
        waiting(grid, clock, [])


def test_a_strategy_sees_only_the_leased_nodes_and_cannot_wait_for_ever():
    grid = InProcessGrid({1: silent, 2: silent, 3: silent})
    assert LeasedGrid(grid, [3, 1], limit=time.monotonic() + 60).get_node_ids() == [3, 1]
    with pytest.raises(RoundError, match=r"more clients than the 2 there are.*min_available_nodes"):
        LeasedGrid(grid, [3, 1], limit=time.monotonic() - 1).get_node_ids()


def asked(nodes, arrays):
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": 2})})
    return [Message(content, dst_node_id=node, message_type=MessageType.TRAIN) for node in nodes]


def test_each_client_is_told_its_own_slot_and_partition_and_all_share_the_arrays():
    arrays = encode({"w": np.ones(3, np.float32)})
    leases = Leases(4).renew([30, 10, 20])
    messages = address(asked([20, 10], arrays), leases, 50)
    told = [dict(message.content["config"]) for message in messages]
    assert told == [
        {"server-round": 2, "client": 1, "partition": 1, "partitions": 4},
        {"server-round": 2, "client": 0, "partition": 0, "partitions": 4},
    ]
    assert all(message.content["arrays"] is arrays for message in messages)
    assert [message.metadata.dst_node_id for message in messages] == [20, 10]
    assert all(message.metadata.ttl > 50 for message in messages)


def test_a_spare_without_a_lease_is_not_asked():
    messages = address(asked([1, 2, 3], encode({})), Leases(2).renew([1, 2, 3]), 50)
    assert [message.metadata.dst_node_id for message in messages] == [1, 2]


def test_the_configuration_holds_every_setting():
    settings = Settings(rounds=3, mu=0.1, strategy_args='{"a": 1}')
    record = configuration(settings, 9)
    assert record["server-round"] == 9
    assert parse(json.loads(record["settings"])) == settings


def test_the_quorum_is_the_larger_of_a_number_and_a_share_rounded_up():
    assert quorum(Settings(quorum=3), wanted=10) == 3
    assert quorum(Settings(quorum=3, quorum_share=0.7), wanted=10) == 7
    assert quorum(Settings(quorum_share=0.75), wanted=10) == 8
    assert quorum(Settings(quorum=5, quorum_share=0.5), wanted=2) == 5
