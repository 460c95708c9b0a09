import json
import os
import re
import sqlite3
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from fl_client.observers.prometheus import Metrics
from fl_server.observers import prometheus

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "reference" / "metrics.md"

STARTED = {
    "event": "started", "run": "a", "task": "digits", "strategy": "fedavg", "rounds": 10, "parameters": 760,
    "bytes": 3040, "resumed_from": None,
}  # fmt: skip
ROUND = {
    "event": "round", "round": 1, "seconds": 0.7, "cohort": 3, "replies": 2, "rejected": 1, "loss": 1.5,
    "accuracy": 0.25, "evaluated_on": "test", "bytes_up": 100, "bytes_down": 300,
    "phases": {"train": 0.5, "aggregate": 0.1, "evaluate": 0.1, "commit": 0.0},
}  # fmt: skip
REJECTED = {"event": "rejected", "round": 1, "phase": "train", "reason": "not-finite"}


def write(store, run, *events):
    (store / run).mkdir(exist_ok=True)
    with (store / run / "events.jsonl").open("a") as file:
        file.write("".join(json.dumps(event) + "\n" for event in events))


@pytest.fixture
def registry(tmp_path):
    return prometheus.registry(tmp_path, tmp_path / "state.db", lambda: {"server": [os.getpid(), None]})


def test_counters_sum_over_all_runs_and_gauges_are_of_the_latest(registry, tmp_path):
    read = registry.get_sample_value
    write(tmp_path, "a", STARTED, REJECTED, ROUND, {**ROUND, "round": 2, "loss": None}, {"event": "finished"})
    assert read("parterre_rounds_total") == 2
    assert read("parterre_rejected_replies_total", {"phase": "train", "reason": "not-finite"}) == 1
    assert read("parterre_phase_seconds_total", {"phase": "train"}) == 1.0
    assert read("parterre_loss", {"evaluated_on": "test"}) == 1.5
    assert read("parterre_run_active") == 0
    write(tmp_path, "b", {**STARTED, "resumed_from": 4}, {**ROUND, "round": 5, "accuracy": 0.5})
    assert read("parterre_rounds_total") == 3
    assert read("parterre_received_bytes_total") == 300
    assert read("parterre_round") == 5
    assert read("parterre_accuracy", {"evaluated_on": "test"}) == 0.5
    assert read("parterre_run_info", {"run": "a", "task": "digits", "strategy": "fedavg"}) is None
    assert read("parterre_run_info", {"run": "b", "task": "digits", "strategy": "fedavg"}) == 1
    assert read("parterre_runs_ended_total", {"outcome": "finished"}) == 1
    assert read("parterre_round_seconds_count") == 3


def test_metrics_are_the_same_after_the_server_was_started_again(tmp_path):
    write(tmp_path, "a", STARTED, ROUND, REJECTED, {"event": "failed"})
    first, second = (prometheus.registry(tmp_path, tmp_path / "state.db", dict) for _ in range(2))
    assert values(first) == values(first) == values(second)


def test_who_is_connected_is_what_superlinks_database_says(tmp_path):
    database = tmp_path / "state.db"
    assert prometheus.connected(database) == 0
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE node (node_id INTEGER, online_until FLOAT)")
        connection.executemany("INSERT INTO node VALUES (?, ?)", [(1, 90.0), (2, 110.0), (3, 120.0), (4, None)])
    assert prometheus.connected(database, clock=lambda: 100.0) == 2


def test_memory_is_that_of_the_processes_that_there_are(registry):
    assert registry.get_sample_value("parterre_memory_bytes", {"process": "server"}) > 1_000_000
    assert prometheus.resident_bytes(2**22 + 1) == 0


def exported(tmp_path):
    client = prometheus.CollectorRegistry()
    Metrics(client)
    text = generate_latest(prometheus.registry(tmp_path, tmp_path / "state.db", dict)) + generate_latest(client)
    return {family.name: family for family in text_string_to_metric_families(text.decode())}


def test_every_metric_stands_in_its_page_and_no_other(tmp_path):
    named = set(re.findall(r"^\| `(parterre_\w+)", PAGE.read_text(), re.MULTILINE))
    full = {name + ("_total" if family.type == "counter" else "") for name, family in exported(tmp_path).items()}
    assert named == {name for name in full if not name.endswith("_created")}


def test_names_and_units_follow_the_conventions_of_prometheus(tmp_path):
    for name, family in exported(tmp_path).items():
        assert re.fullmatch(r"parterre_[a-z_]+", name), name
        assert family.documentation.endswith("."), name
        assert not re.search(r"_(ms|millis|kb|mb|minutes|percent)(_|$)", name), name


def values(registry):
    samples = (sample for family in registry.collect() for sample in family.samples)
    return {
        (s.name, *sorted(s.labels.items())): s.value
        for s in samples
        if not s.name.endswith(("_created", "_free_bytes"))
    }


def test_a_damaged_log_takes_no_metric_of_the_other_runs(registry, tmp_path):
    nonsense = {"seconds": "x", "bytes_up": {}, "bytes_down": -5, "phases": [1], "cohort": "a", "loss": []}
    write(tmp_path, "a", {**STARTED, "rounds": "many"}, *({**ROUND, key: value} for key, value in nonsense.items()))
    write(tmp_path, "b", STARTED, ROUND)
    assert registry.get_sample_value("parterre_round") == 1
    assert registry.get_sample_value("parterre_loss", {"evaluated_on": "test"}) == 1.5
