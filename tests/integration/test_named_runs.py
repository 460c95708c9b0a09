"""One name is one run: submitted once and followed after that, over restarts, and gone on with by its name."""

import signal
from pathlib import Path

import pytest

from fl_server.store.runs import Run
from tests.integration.conftest import Start, until
from tests.support.fleet import Fleet

QUICK = ("--set", "fraction_evaluate=0", "--set", "plot=false", "--set", "tensorboard=false")


def restart(fleet: Fleet, name: str) -> None:
    fleet.server.send_signal(signal.SIGTERM)
    assert fleet.server.wait(timeout=300) == 0
    fleet.serve(name)


@pytest.mark.slow
def test_a_name_is_one_run_whose_server_may_be_restarted_and_which_goes_on_by_its_name(
    start: Start, tmp_path: Path
) -> None:
    fleet = Fleet(start, tmp_path)
    named = ("--name", "trial", "--rounds", "2", "--set", "wait_seconds=0", "--set", "min_clients=1", *QUICK)

    # While no client is there the run waits, whoever asks for it, and however often the server is restarted.
    first = fleet.running(*named, log="first")
    until(lambda: "waiting" in [each["event"] for each in fleet.events("trial")], "the run to wait", first)
    for number in range(6):
        restart(fleet, f"server-{number}")
    events = fleet.events("trial")
    assert {event["attempt"] for event in events if event["event"] == "restarted"} == {0}
    assert Run.open(fleet.store / "trial").status not in ("failed", "finished")
    second = fleet.running(*named, log="second")
    until(lambda: "it is there, as run" in fleet.log("second"), "the second to find the run", second)

    # One run, which both followed to its end; asked for again it is shown, and not run.
    fleet.client("client")
    assert first.wait(timeout=240) == second.wait(timeout=240) == 0
    done = fleet.run(*named, "--set", "batch_size=7")
    assert done.returncode == 0
    assert "with the settings that it began with, without batch_size=7 (32)" in done.stderr
    assert [event["round"] for event in fleet.events("trial", "round")] == [1, 2]
    assert [entry.name for entry in fleet.store.iterdir() if (entry / "settings.toml").exists()] == ["trial"]

    # It goes on by its name, with more rounds, and keeps the settings that it began with.
    done = fleet.run("--resume", "trial", "--rounds", "3")
    assert done.returncode == 0, done.stderr
    assert [event["round"] for event in fleet.events("trial", "round")] == [1, 2, 3]

    # What cannot go on is refused.
    assert "takes no --task" in fleet.run("--resume", "trial", "--task", "digits").stderr
    done = fleet.run("--resume", "no-such-run")
    assert done.returncode == 1
    assert "no-such-run" in done.stderr
