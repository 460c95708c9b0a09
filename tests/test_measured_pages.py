"""Tables of the docs that benchmarks write are those of their results; and the results are of what the pages say."""

import json

import pytest

from benchmarks import chaos, client_memory, thousand_nodes
from tests.chaos.schedule import COUNTS


@pytest.mark.parametrize("benchmark", [chaos, client_memory, thousand_nodes], ids=lambda module: module.__name__)
def test_a_page_shows_what_was_measured(benchmark):
    text = benchmark.PAGE.read_text()
    assert text == benchmark.page(text, json.loads(benchmark.RESULT.read_text())), "run the benchmark with --page"


def test_three_seeds_suffered_every_kind_of_fault_and_lost_no_round():
    result = json.loads(chaos.RESULT.read_text())
    assert len(set(result["seeds"])) >= 3
    assert result["faults"] == {kind: count * len(result["seeds"]) for kind, count in COUNTS.items()}
    assert result["rounds_lost"] == 0


def test_a_thousand_nodes_joined_and_each_round_had_its_hundred_replies():
    result = json.loads(thousand_nodes.RESULT.read_text())
    assert (result["nodes"], result["connections"]) == (1000, 1000)
    assert all(each["replies"] == result["cohort"] == 100 for each in result["rounds"])
