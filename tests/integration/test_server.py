"""`fl server`, `fl client` and `fl run` as separate commands: the deployed way, on loopback."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest

from tests.integration.conftest import Start, descendants, stop, until
from tests.support.fleet import Fleet


@pytest.fixture
def fleet(start: Start, tmp_path: Path) -> Fleet:
    return Fleet(start, tmp_path)


@pytest.mark.slow
def test_a_server_takes_one_run_after_another_from_clients_that_stay(fleet: Fleet) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 64)).astype("float32")
    np.savez(fleet.directory / "own.npz", x=x, y=(x[:, 0] > 0).astype("int64"))
    clients = [fleet.client("client-0"), fleet.client("client-1", "--data", str(fleet.directory / "own.npz"))]

    first = fleet.run("--rounds", "2", "--task", "digits")
    assert first.returncode == 0, first.stderr
    finished = json.loads(first.stdout.splitlines()[-1])
    assert finished["event"] == "finished"
    assert Path(finished["model"]).is_relative_to(fleet.directory / "store")

    second = fleet.run("--rounds", "1", "--strategy", "flwr.serverapp.strategy:FedYogi", "--set", "eta=0.05")
    assert second.returncode == 0, second.stderr
    failed = fleet.run("--task", "nonsense")
    assert failed.returncode == 2
    assert "unknown task 'nonsense'" in failed.stderr

    assert [stop(client) for client in clients] == [0, 0]
    assert all("left the server" in fleet.log(name) for name in ("client-0", "client-1"))
    assert stop(fleet.server) == 0


@pytest.mark.slow
def test_a_client_finds_its_server_again_after_a_restart(fleet: Fleet) -> None:
    client = fleet.client("client-0")
    assert stop(fleet.server, signal.SIGTERM) == 0
    until(lambda: "no connection to the server" in fleet.log("client-0"), "the client to notice", client)
    fleet.serve("server-again")
    until(lambda: fleet.log("client-0").count("joined") == 2, "the client to join again", client)
    done = fleet.run("--rounds", "1", "--set", "min_clients=1")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_superlink_that_falls_is_started_again_and_the_client_finds_it(fleet: Fleet) -> None:
    client = fleet.client("client-0")
    log = str(fleet.directory / "store" / ".superlink" / "superlink.log")
    superlink = next(
        each for each in descendants(fleet.server.pid) if Path(f"/proc/{each.pid}/fd/1").readlink() == Path(log)
    )
    superlink.kill()
    until(lambda: fleet.log("server").count("server is up") == 2, "the SuperLink to be started again", fleet.server)
    until(lambda: fleet.log("client-0").count("joined") == 2, "the client to join again", client)
    done = fleet.run("--rounds", "1", "--set", "min_clients=1")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_client_told_to_stop_finishes_the_message_in_hand(fleet: Fleet) -> None:
    client = fleet.client("client-0")
    run = fleet.running(
        "--rounds", "1", "--set", "min_clients=1", "--set", "local_epochs=500", "--set", "fraction_evaluate=0"
    )  # fmt: skip
    until(lambda: "received: train" in fleet.log("client-0"), "a message in hand", run)
    assert stop(client) == 0
    assert "left the server" in fleet.log("client-0")
    assert run.wait(timeout=240) == 0, fleet.log("run")  # its one round had its one reply
