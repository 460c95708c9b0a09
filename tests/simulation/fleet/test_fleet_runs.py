"""Whole runs of a simulated fleet: rounds in its time, the same by every way of training, and after a resume."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_client.app import Workplace, make_app
from fl_common.errors import StoreError
from fl_common.settings.schema import Settings
from fl_server.app import serve
from fl_server.store.runs import Run
from fl_simulation.engine.engine import BatchedEngine
from fl_simulation.fleet.fleet_grid import FleetGrid, grid_of
from fl_simulation.flower.client_apps import ClientAppEngine
from tests.support.simulated_federation import Silent, final, settings_of

CLIENTS = 24
PHONES = {
    "fleet_speed": 4.0,
    "fleet_download": 1.0,
    "fleet_upload": 0.1,
    "fleet_latency": 0.2,
    "fleet_dropout": 0.15,
    "fleet_peak": 0.9,
    "fleet_trough": 0.6,
    "deadline_seconds": 60.0,
}


def fleet_of(**more: Any) -> Settings:
    given = {"min_clients": 1, "fraction": 0.5, "seed": 5}
    return settings_of(CLIENTS, **(given | PHONES | more))


def run(directory: Path, settings: Settings, *, app: bool = False) -> Run:
    new = Run.open(directory) if settings.resume else Run.create(directory, settings)
    if app:
        grid = grid_of(settings, CLIENTS, ClientAppEngine(make_app(Workplace()), CLIENTS))
    else:
        engine = BatchedEngine(settings)
        grid = grid_of(settings, CLIENTS, engine, engine.sizes)
    serve(grid, settings, new, observer=Silent())
    return new


def figures(run: Run) -> list[Any]:
    keys = ("cohort", "replies", "rejected", "surplus", "fleet")
    return [[event[key] for key in keys] for event in run.rounds()]


def dropped(run: Run) -> list[Any]:
    keys = ("round", "client", "reason", "seconds")
    return [[event[key] for key in keys] for event in run.events() if event["event"] == "dropped"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(tmp_path_factory.mktemp("runs") / "whole", fleet_of())


def test_a_round_says_its_fleet_time_and_the_run_its_whole(whole: Run):
    clock = 0.0
    for event in whole.rounds():
        fleet = event["fleet"]
        assert fleet["seconds"] == pytest.approx(fleet["train"] + fleet["evaluate"], abs=0.01)
        assert fleet["clock"] == pytest.approx(clock + fleet["seconds"], abs=0.01)
        assert event["cohort"] <= fleet["there"] <= CLIENTS
        clock = fleet["clock"]
    assert whole.events()[-1]["fleet_seconds"] == clock


def test_clients_that_drop_out_are_lost_and_others_are_asked_in_their_place(whole: Run):
    lost = [event for event in whole.events() if event.get("reason") == "lost"]
    assert lost
    assert all(event["detail"] == "the client dropped out in the middle of its work" for event in lost)


def test_a_client_holds_the_partition_of_its_number_whoever_is_there(whole: Run):
    seen = [event for event in whole.events() if event["event"] in ("rejected", "dropped")]
    assert all(int(event["node"]) == event["client"] + 1 for event in seen)


@pytest.mark.slow
def test_the_mean_is_over_those_that_arrive_as_with_the_deployed_client(tmp_path: Path):
    """Whose sizes are not known beforehand; so nobody drops out, for of the lost there is no reply that tells them."""
    settings = fleet_of(fleet_dropout=0.0, rounds=2, deadline_seconds=20.0)
    ours, truth = run(tmp_path / "ours", settings), run(tmp_path / "app", settings, app=True)
    assert figures(ours) == figures(truth)
    assert any(event["replies"] < event["cohort"] for event in ours.rounds())
    for name, array in final(truth).items():
        np.testing.assert_allclose(final(ours)[name], array, rtol=0, atol=1e-5, err_msg=name)


def test_a_resumed_run_goes_on_at_the_hour_where_it_stopped_and_ends_in_the_same_bits(tmp_path: Path, whole: Run):
    run(tmp_path / "run", fleet_of(rounds=1))
    again = run(tmp_path / "run", fleet_of(out=str(tmp_path / "run"), resume=True))
    assert figures(again) == figures(whole)
    for name, array in final(whole).items():
        np.testing.assert_array_equal(final(again)[name], array)


@pytest.mark.slow
def test_clients_that_are_at_work_still_are_so_after_a_resume_wherever_it_stopped(tmp_path: Path):
    many = {"rounds": 7, "over_selection": 1.3, "clients_per_round": 8, "fraction": 1.0, "fleet_speed": 20.0}
    whole = run(tmp_path / "whole", fleet_of(**many))
    assert any(event["event"] == "dropped" for event in whole.events())
    for stop in range(1, 7):
        out = tmp_path / str(stop)
        run(out, fleet_of(**many | {"rounds": stop}))
        again = run(out, fleet_of(**many, out=str(out), resume=True))
        assert figures(again) == figures(whole)
        assert dropped(again) == dropped(whole)
        for name, array in final(whole).items():
            np.testing.assert_array_equal(final(again)[name], array)


@pytest.mark.parametrize("notes", [{}, {"busy": 3, "coming": []}, {"busy": [], "coming": [["x"]]}])
def test_a_checkpoint_that_does_not_say_what_is_on_its_way_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notes: Any
):
    with monkeypatch.context() as patch:
        patch.setattr(FleetGrid, "notes", lambda self: notes)
        run(tmp_path / "run", fleet_of(rounds=1))
    with pytest.raises(StoreError, match="the checkpoint of round 1 is damaged: it does not say what is on its way"):
        run(tmp_path / "run", fleet_of(rounds=2, out=str(tmp_path / "run"), resume=True))


@pytest.mark.slow
def test_the_first_of_too_many_are_taken_and_the_round_ends_with_them(tmp_path: Path):
    settings = fleet_of(fleet_dropout=0.0, fleet_peak=1.0, deadline_seconds=600.0, rounds=2, fleet_speed_spread=1.5)
    slow = run(tmp_path / "slow", settings)
    fast = run(tmp_path / "fast", settings.model_copy(update={"over_selection": 1.5}))
    assert [(event["replies"], event["cohort"], event["surplus"]) for event in fast.rounds()] == [(12, 18, 6)] * 2
    taken = [sum(event["fleet"]["train"] for event in run.rounds()) for run in (fast, slow)]
    assert taken[0] < taken[1]


@pytest.mark.slow
def test_a_round_that_misses_its_quorum_in_fleet_time_is_repeated(tmp_path: Path):
    settings = fleet_of(rounds=1, deadline_seconds=20.0, quorum_share=0.7, fleet_speed_spread=1.0, max_repeats=6)
    with_repeats = run(tmp_path / "run", settings)
    repeats = [event for event in with_repeats.events() if event["event"] == "repeat"]
    assert repeats
    (event,) = with_repeats.rounds()
    assert event["fleet"]["train"] <= 20 * (len(repeats) + 1)


def test_without_settings_of_a_fleet_there_is_none(tmp_path: Path):
    settings = settings_of(6, rounds=1)
    engine = BatchedEngine(settings)
    grid = grid_of(settings, 6, engine, engine.sizes)
    assert not isinstance(grid, FleetGrid)
    plain = Run.create(tmp_path / "run", settings)
    serve(grid, settings, plain, observer=Silent())
    assert "fleet" not in plain.rounds()[0]
    assert "fleet_seconds" not in plain.events()[-1]
