"""`docker compose up`, for real: one stack that the tests use one after the other, in this order."""

import re
from collections.abc import Iterator

import numpy as np
import pytest

from tests.support.stack import Stack, crash, freeze, health, restarts, until

pytestmark = pytest.mark.docker

SETTINGS = {"FL_ROUNDS": "12", "FL_LOCAL_EPOCHS": "10", "FL_MIN_CLIENTS": "3", "FL_PARTITIONS": "3", "FL_SEED": "7"}
SAME = [f"--set={key.removeprefix('FL_').lower()}={value}" for key, value in SETTINGS.items()]
OF_DOCKER = {"/usr", "/usr/sbin", "/usr/sbin/docker-init"}  # where `init: true` mounts Docker's own first process
LONG = ["--rounds", "6", "--set", "local_epochs=500", "--set", "min_clients=2", "--set", "partitions=3"]


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    found = Stack("parterre-test", **SETTINGS)
    found.down()
    found.compose("build")
    found.up()
    yield found
    found.down()


def partitions(stack: Stack) -> dict[str, list[str]]:
    """Return what each client's container says of the partitions that it loaded."""
    return {each.name: re.findall(r"partition \d+ of \d+", each.logs().decode()) for each in stack.containers("client")}


def test_up_trains_the_digits_to_the_end_without_any_step(stack: Stack) -> None:
    finished = stack.wait("digits")
    assert finished["accuracy"] >= 0.93
    assert [event["cohort"] for event in stack.events("digits", "round")] == [3] * 12
    assert all(stack.file(f"/store/digits/{name}") for name in ("model.keras", "plot.png", "events.jsonl"))
    assert "round 12: loss" in stack.server.logs().decode()  # what `docker compose logs -f server` shows
    assert stack.containers("init", all=True)[0].wait(timeout=60)["StatusCode"] == 0


def test_server_and_clients_are_healthy(stack: Stack) -> None:
    for container in (stack.server, *stack.containers("client")):
        until(lambda each=container: health(each) == "healthy", f"{container.name} to be healthy")


def test_processes_are_nobody_and_write_only_where_they_are_to(stack: Stack) -> None:
    for container in (stack.server, *stack.containers("client")):
        host, top = container.attrs["HostConfig"], container.top(ps_args="-eo pid,uid,args")
        assert host["ReadonlyRootfs"]
        assert host["CapDrop"] == ["ALL"]
        assert "no-new-privileges:true" in host["SecurityOpt"]
        assert {process[1] for process in top["Processes"]} == {"10001"}
        assert {each["Path"] for each in container.diff() or []} <= OF_DOCKER


def test_clients_reach_the_fleet_port_and_nothing_else(stack: Stack) -> None:
    (client, *_) = stack.containers("client")

    def reaches(host: str, port: int) -> bool:
        program = f"import socket; socket.create_connection(('{host}', {port}), timeout=3)"
        return bool(client.exec_run(["python", "-c", program]).exit_code == 0)

    assert reaches("server", 9092)
    assert not reaches("server", 9093)
    assert not reaches("server", 9091)
    assert not reaches("control", 9093)
    assert client.exec_run(["ls", "/store"]).exit_code != 0 or client.exec_run(["ls", "-A", "/store"]).output == b""


def test_the_server_stays_and_takes_the_next_run_from_the_same_clients(stack: Stack) -> None:
    before = [each.id for each in stack.containers("client")]
    assert stack.run("--task", "digits", "--rounds", "2")["rounds"] == 2
    assert [each.id for each in stack.containers("client")] == before
    assert not any(restarts(each) for each in (stack.server, *stack.containers("client")))


def test_a_killed_server_goes_on_and_ends_in_the_same_weights(stack: Stack) -> None:
    following = stack.submit(*SAME, "--set", "out=/store/killed")
    until(lambda: stack.rounds("killed") >= 3, "three rounds")
    crash(stack.server)
    stack.wait("killed")
    following.communicate(timeout=60)
    assert restarts(stack.server) == 1
    assert any(event.get("resumed_from") for event in stack.events("killed", "started"))
    undisturbed, resumed = (stack.weights(run, 12) for run in ("digits", "killed"))
    assert undisturbed.keys() == resumed.keys()
    for name, array in undisturbed.items():
        np.testing.assert_array_equal(array, resumed[name])


def test_a_killed_client_costs_no_round_and_comes_back_to_its_partition(stack: Stack) -> None:
    until(lambda: all(health(each) == "healthy" for each in stack.containers("client")), "healthy clients")
    following = stack.submit(*LONG, "--set", "deadline_seconds=60", "--set", "out=/store/client-killed")
    until(lambda: stack.rounds("client-killed") >= 1, "a round")
    (victim, *_) = stack.containers("client")
    held = partitions(stack)[victim.name][-1]
    keys = ["sh", "-c", "sha256sum /state/client/*/key.pem"]  # of all three replicas
    state = victim.exec_run(keys).output
    crash(victim)
    finished = stack.wait("client-killed")
    following.communicate(timeout=60)
    assert finished["rounds"] == 6
    assert restarts(victim) == 1
    assert victim.exec_run(keys).output == state
    assert stack.run("--rounds", "2", "--set", "min_clients=3", "--set", "partitions=3")["rounds"] == 2
    assert partitions(stack)[victim.name][-1] == held
    assert len({loaded[-1] for loaded in partitions(stack).values()}) == 3


def test_a_client_that_is_paused_past_the_deadline_costs_no_round(stack: Stack) -> None:
    following = stack.submit(*LONG, "--set", "deadline_seconds=8", "--set", "out=/store/paused")
    until(lambda: stack.rounds("paused") >= 1, "a round")
    (victim, *_) = stack.containers("client")
    freeze(victim)
    try:
        finished = stack.wait("paused")
    finally:
        freeze(victim, thaw=True)
    following.communicate(timeout=60)
    assert finished["rounds"] == 6
    reasons = {event["reason"] for event in stack.events("paused", "rejected")}
    assert reasons
    assert reasons <= {"late", "lost"}
    until(lambda: health(victim) == "healthy", "the paused client to be back")
    stack.run("--rounds", "1", "--set", "min_clients=3")
