"""A day of an operator of Compose, in one script on one stack: the tests go on where the one before ended.

Its settings stand in an env file, its containers have a proxy injected, and its store is a small disk.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker.models.containers import Container

from tests.support.stack import GREEDY, Stack, fill, health, restarts, until

pytestmark = pytest.mark.docker

DISK, MEMORY = "160m", "1536m"
OVERLAY = """
services:
  server:
    deploy: {{resources: {{limits: {{memory: {memory}}}}}}}
volumes:
  store: {{driver: local, driver_opts: {{type: none, o: bind, device: {disk}}}}}
"""
NO_PROXY_THERE = "http://192.0.2.1:9"  # an address of which nothing answers
NEXT = "the-next-day"  # a tag of the same images


class Day(Stack):
    """A stack whose settings are those of its env file."""

    def __init__(self, folder: Path, disk: Path) -> None:
        self.settings = folder / ".env"
        self.disk = disk
        self.clients = 1
        (folder / "overlay.yaml").write_text(OVERLAY.format(memory=MEMORY, disk=disk))
        super().__init__("parterre-day", str(folder / "overlay.yaml"), env_file=self.settings)

    def begin(self, run: str, *, clients: int | None = None, **settings: Any) -> None:
        """Write the env file, and bring the stack up with it: its first-run submits the run."""
        given = {"RUN": run, **settings}
        self.settings.write_text("".join(f"{name}={value}\n" for name, value in given.items()))
        self.clients = clients or self.clients
        self.up("--no-build", "--scale", f"client={self.clients}")

    def fl(self, *arguments: str) -> str:
        """Run a command of `fl` in the server's container, and return what it says."""
        done = self.server.exec_run(["fl", *arguments], environment={"FL_CONTROL": "control:9093"})
        said = str(done.output.decode())
        assert done.exit_code == 0, said
        return said

    def first_run(self) -> tuple[int, str]:
        """Return how first-run ended and what it said."""
        (container,) = self.containers("first-run", all=True)
        return container.wait(timeout=120)["StatusCode"], container.logs().decode()

    def ids(self) -> set[str]:
        """Return the containers that serve."""
        return {each.id for each in (self.server, *self.containers("client"))}

    def tags(self) -> set[str]:
        """Return the tags of the images that serve."""
        used = [each.attrs["Config"]["Image"] for each in (self.server, *self.containers("client"))]
        return {image.partition(":")[2] for image in used}


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    if os.geteuid() != 0:
        pytest.skip("a small disk is mounted by root only")
    folder, disk = tmp_path_factory.mktemp("day"), tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK},uid=10001,gid=0,mode=770", "tmpfs", str(disk)]
    subprocess.run(mount, check=True)
    (folder / "config.json").write_text(
        json.dumps({"proxies": {"default": {"httpProxy": NO_PROXY_THERE, "httpsProxy": NO_PROXY_THERE}}})
    )
    found = Day(folder, disk)
    try:
        found.settings.write_text("")
        found.down()
        found.compose("build")
        for role in ("server", "client"):
            found.engine.images.get(f"parterre-{role}:latest").tag(f"parterre-{role}", NEXT)
        found.environment["DOCKER_CONFIG"] = str(folder)
        yield found
    finally:
        found.down()
        for role in ("server", "client"):
            found.engine.images.remove(f"parterre-{role}:{NEXT}")
        subprocess.run(["umount", str(disk)], check=True)


def partitions(containers: list[Container]) -> dict[str, str]:
    """Return the partition that each client's container loaded last."""
    return {each.name: re.findall(r"partition \d+ of \d+", each.logs().decode())[-1] for each in containers}


def test_a_late_client_is_waited_for_by_name_and_a_proxy_is_in_nobodys_way(day: Day) -> None:
    day.begin("digits", FL_ROUNDS=3, FL_MIN_CLIENTS=2)
    until(lambda: "waiting for 2 clients; 1 is there" in day.fl("runs"), "fl runs to say what is waited for")
    assert "waiting for 2 clients; 1 is there" in day.fl("health", "server")
    for container in (day.server, *day.containers("client")):
        assert NO_PROXY_THERE in container.exec_run(["sh", "-c", "echo $https_proxy"]).output.decode()
    day.begin("digits", clients=2, FL_ROUNDS=3, FL_MIN_CLIENTS=2)
    assert day.wait("digits")["rounds"] == 3


def test_scaled_up_every_client_has_a_partition_of_its_own_and_scaled_down_none_is_unused(day: Day) -> None:
    before = day.ids()
    day.begin("five", clients=5, FL_ROUNDS=2, FL_MIN_CLIENTS=5)
    assert day.wait("five")["rounds"] == 2
    assert before < day.ids()
    assert set(partitions(day.containers("client")).values()) == {f"partition {number} of 5" for number in range(5)}
    day.begin("two", clients=2, FL_ROUNDS=2, FL_MIN_CLIENTS=2)
    assert day.wait("two")["rounds"] == 2
    assert set(partitions(day.containers("client")).values()) == {f"partition {number} of 2" for number in range(2)}


def test_other_settings_leave_the_stack_as_it_is_and_are_named(day: Day) -> None:
    before = day.ids()
    day.begin("two", FL_ROUNDS=500, FL_MIN_CLIENTS=2)
    code, said = day.first_run()
    assert code == 0, said
    assert "rounds=500 (2)" in said
    assert day.ids() == before


def test_an_upgrade_takes_over_the_runs(day: Day) -> None:
    before = day.ids()
    day.begin("upgraded", PARTERRE_TAG=NEXT, FL_ROUNDS=2, FL_MIN_CLIENTS=2)
    assert day.wait("upgraded")["rounds"] == 2
    assert day.tags() == {NEXT}
    assert not before & day.ids()
    assert {"digits", "five", "two", "upgraded"} <= set(day.fl("runs").split())


def test_a_wrong_value_is_refused_by_name_and_a_wrong_tag_changes_nothing(day: Day) -> None:
    before = day.ids()
    day.begin("wrong", PARTERRE_TAG=NEXT, FL_ROUNDS=-1)
    code, said = day.first_run()
    assert code == 2, said
    assert "rounds" in said
    assert "Traceback" not in said
    day.settings.write_text("PARTERRE_TAG=no-such\n")
    assert day.compose("up", "-d", "--no-build", "--pull", "never", check=False).returncode
    assert day.ids() == before
    assert health(day.server) == "healthy"


def test_a_rollback_is_the_old_tag(day: Day) -> None:
    day.begin("rolled-back", FL_ROUNDS=2, FL_MIN_CLIENTS=2)
    assert day.wait("rolled-back")["rounds"] == 2
    assert day.tags() == {"latest"}


def test_a_run_that_waits_outlasts_six_restarts_of_its_server(day: Day) -> None:
    day.begin("waits", FL_ROUNDS=1, FL_MIN_CLIENTS=3)
    until(lambda: day.events("waits", "waiting"), "the wait")
    for number in range(1, 7):
        day.server.restart(timeout=30)
        until(lambda count=number: len(day.events("waits", "restarted")) == count, f"start {number}")
        until(lambda: day.events("waits")[-1]["event"] in ("started", "waiting"), "it to go on")
    assert not day.events("waits", "failed")
    day.begin("waits", clients=3, FL_ROUNDS=1, FL_MIN_CLIENTS=3)
    assert day.wait("waits")["rounds"] == 1


def test_a_run_that_is_killed_for_memory_is_named_as_such(day: Day, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "greedy.py").write_text(GREEDY)
    following = day.submit("--task", "/own/greedy.py", "--name", "greedy", options=["-v", f"{tmp_path}:/own:ro"])
    event = until(lambda: day.events("greedy", "restarted"), "the kernel's kill")[0]
    assert "out of memory: limit 1536 MiB" in event["reason"]
    assert "out of memory: limit 1536 MiB" in day.server.logs().decode()
    assert "out of memory" in day.wait("greedy", "failed")["error"]
    following.communicate(timeout=60)
    assert restarts(day.server) == 0


def test_a_full_disk_is_waited_out_and_no_warning_comes_twice(day: Day) -> None:
    day.begin("full", clients=3, FL_ROUNDS=6, FL_LOCAL_EPOCHS=200, FL_MIN_CLIENTS=3)
    until(lambda: day.rounds("full") >= 1, "a round")
    filler = fill(day.disk)
    try:
        further = f"round {day.rounds('full') + 2}: trained".encode()  # while the round before it is written
        until(lambda: any(further in each.logs() for each in day.containers("client")), "the round that is not written")
        until(lambda: warnings(day), "the warning")
    finally:
        filler.unlink()
    assert day.wait("full")["rounds"] == 6
    assert day.events("full", "paused") or day.events("full", "restarted")  # who asks for room first: run or SuperLink
    assert len(warnings(day)) == len(set(warnings(day)))


def warnings(day: Day) -> list[str]:
    """Return what the server said of its disk."""
    return [line for line in day.server.logs().decode().splitlines() if "the disk is full" in line]


def test_a_revoked_client_stays_shut_out_and_is_not_started_again_for_ever(day: Day) -> None:
    listed = [json.loads(line) for line in day.fl("clients", "--json").splitlines()]
    day.fl("clients", "revoke", max(listed, key=lambda each: each["seen"] or 0)["client"])
    (out,) = until(lambda: [each for each in day.containers("client") if b"looks again" in each.logs()], "the word")
    until(lambda: health(out) == "unhealthy", "the revoked client's health")
    day.begin("without", FL_ROUNDS=2, FL_MIN_CLIENTS=2)
    assert [event["cohort"] for event in wait_rounds(day, "without")] == [2, 2]
    assert restarts(out) == 0


def wait_rounds(day: Day, run: str) -> list[dict[str, Any]]:
    day.wait(run)
    return day.events(run, "round")


def test_stop_ends_server_and_clients_at_once_and_they_say_goodbye(day: Day) -> None:
    stopped = [*day.containers("client"), day.server]
    day.compose("stop", "--timeout", "30")
    for container in stopped:
        container.reload()
        assert container.attrs["State"]["ExitCode"] == 0, container.logs(tail=20).decode()  # 137: it had to be killed
    assert sum(b"left the server" in each.logs(tail=20) for each in stopped[:-1]) == 2  # the third was shut out


def test_after_down_and_up_the_runs_and_the_clients_are_the_same(day: Day) -> None:
    day.compose("down")
    day.begin("again", FL_ROUNDS=2, FL_MIN_CLIENTS=2)
    assert day.wait("again")["rounds"] == 2
    assert {"digits", "five", "waits", "full", "again"} <= set(day.fl("runs").split())
    assert day.rounds("digits") == 3  # the first run was not begun again
    assert len(day.fl("clients", "--json").splitlines()) == 5


def test_down_with_volumes_leaves_nothing(day: Day) -> None:
    used = {
        mount["Name"]
        for each in (day.server, *day.containers("client"))
        for mount in each.attrs["Mounts"]
        if mount["Type"] == "volume"
    }
    assert {name.removeprefix(f"{day.name}_") for name in used} == {"store", "enrolment", "state"}
    day.down()
    label = {"label": f"com.docker.compose.project={day.name}"}
    assert day.engine.containers.list(all=True, filters=label) == []
    assert day.engine.networks.list(filters=label) == []
    assert not used & {volume.name for volume in day.engine.volumes.list()}
