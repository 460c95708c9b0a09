"""A simulated run and a deployed one of the same seed: one process here, real processes over gRPC there."""

import json
import signal
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_server.store.runs import Run
from tests.integration.conftest import FL, Event, Start, events, fl, stop, until

RAGGED = Path(__file__).parents[1] / "support" / "ragged_task.py"
UNEVEN = ("--set", "partitioning=dirichlet", "--set", "alpha=0.5", "--set", "batch_size=16")
PHONES = (
    "--set", "fleet_speed=20", "--set", "fleet_latency=0.1", "--set", "fleet_dropout=0.1", "--set", "fleet_peak=0.9",
    "--set", "fleet_trough=0.6", "--set", "deadline_seconds=60", "--set", "over_selection=1.3",
)  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [
        ("--clients", "3", *UNEVEN),
        pytest.param(("--task", str(RAGGED), "--clients", "6"), marks=pytest.mark.slow),
        pytest.param(("--task", str(RAGGED), "--clients", "6", "--set", "model=norm"), marks=pytest.mark.slow),
    ],
    ids=["digits", "dropout and adam", "batchnorm, dropout and adam"],
)
def test_simulated_and_deployed_runs_end_in_the_same_weights_and_leave_the_same(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    arrays, left, printed = [], [], []
    for command in ("simulate", "up"):
        out = tmp_path / command
        done = fl(command, *arguments, "--rounds", "3", "--seed", "7", "--out", str(out), "--json")
        assert done.returncode == 0, done.stderr
        arrays.append(weights(out))
        left.append(what_is_left(out))
        printed.append([json.loads(line) for line in done.stdout.splitlines()])
    agree(*arrays)
    assert left[0] == left[1]
    assert kinds(printed[0]) == kinds(printed[1])


def weights(out: Path) -> dict[str, Any]:
    checkpoint = Run.open(out).latest()
    assert checkpoint is not None
    return checkpoint.arrays


def agree(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_allclose(array, other[name], rtol=0, atol=1e-5, err_msg=name)


def what_is_left(out: Path) -> tuple[dict[str, Any], set[str]]:
    """Return a run's settings but for its directory, and the names of what is in that.

    Aside are the logs of processes, and the history, into which a simulation writes only clients that fail.
    """
    settings = tomllib.loads((out / "settings.toml").read_text())
    return {key: value for key, value in settings.items() if key != "out"}, {
        each.name for each in out.iterdir() if each.name not in ("logs", "clients.json")
    }


def kinds(printed: list[Event]) -> list[tuple[str, list[str]]]:
    """Return each event's name and keys.

    Left out are the engine's choice, which a deployed run does not make, and what is told of clients that come late.
    """
    return [(event["event"], sorted(event)) for event in printed if event["event"] not in ("engine", "waiting")]


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [("--fraction", "0.5", "--strategy", "fedadam"), (*PHONES, "--set", "clients_per_round=8")],
    ids=["simulated", "of a simulated fleet"],
)
def test_a_simulation_stopped_by_ctrl_c_says_how_to_go_on_and_ends_as_if_undisturbed(
    tmp_path: Path, start: Start, arguments: tuple[str, ...]
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    common = ("simulate", "--clients", "24", "--seed", "5", *arguments)
    running = start(FL, *common, "--rounds", "100000", "--out", str(stopped), log="stopped.log")
    until(lambda: len(events(stopped, "round")) >= 2, "two rounds", running)
    assert stop(running, signal.SIGINT) == 128 + signal.SIGINT
    said = (tmp_path / "stopped.log").read_text()
    assert f"stopped; go on with: fl resume {stopped}" in said
    assert "Traceback" not in said
    rounds = str(len(events(stopped, "round")) + 3)
    resumed = fl("resume", str(stopped), "--rounds", rounds)
    assert resumed.returncode == 0, resumed.stderr
    assert "Traceback" not in resumed.stderr
    assert fl(*common, "--rounds", rounds, "--out", str(whole)).returncode == 0
    assert [figures(event) for event in events(stopped, "round")] == [
        figures(event) for event in events(whole, "round")
    ]
    for name, array in weights(whole).items():
        np.testing.assert_array_equal(weights(stopped)[name], array)


def figures(event: Event) -> list[Any]:
    return [event[key] for key in ("round", "cohort", "replies", "surplus", "loss", "accuracy")] + [event.get("fleet")]
