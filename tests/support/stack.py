"""A federation in containers, as a test drives it: `docker compose` starts it, the Docker SDK looks into it."""

import io
import json
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import docker
import numpy as np
import pytest
from docker.errors import APIError, NotFound
from docker.models.containers import Container

ROOT = Path(__file__).parents[2]
PATIENCE = 300.0
BUILDING = 1500.0  # of images of which no layer is there
GREEDY = """
# A task that takes more memory than a server has in these tests.
import keras
import numpy as np


def build_model():
    np.ones(1 << 28)  # 2 GiB
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "softmax")])


def load_partition(partition, partitions):
    return (np.ones((8, 4)), np.ones(8)), (np.ones((8, 4)), np.ones(8))
"""

Event = dict[str, Any]


def engine() -> docker.DockerClient:
    """Return the Docker engine; skip the test where none answers or where it has no Compose."""
    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as error:
        pytest.skip(f"no Docker engine answers: {error}")
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("this Docker has no Compose v2")
    return client


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait for a condition and return its value; fail with `what` when patience ends."""
    limit = time.monotonic() + PATIENCE
    while not (value := condition()):
        if time.monotonic() > limit:
            pytest.fail(f"waited {PATIENCE:g} s for {what}")
        time.sleep(0.1)
    return value


class Stack:
    """One Compose project. Everything of it is removed by `down`."""

    def __init__(self, name: str, *overlays: str, env_file: Path | None = None, **environment: str) -> None:
        self.engine = engine()
        self.name = name
        files = [part for file in ("compose.yaml", *overlays) for part in ("-f", str(ROOT / file))]
        settings = ["--env-file", str(env_file)] if env_file is not None else []
        self._command = ["docker", "compose", "-p", name, *settings, *files]
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("FL_", "FLWR_"))}
        self.environment = clean | environment

    def compose(self, *arguments: str, check: bool = True, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run `docker compose ARGUMENTS`; fail with its words where it fails."""
        done = subprocess.run(
            [*self._command, *arguments],
            capture_output=True, text=True, check=False, cwd=ROOT, stdin=subprocess.DEVNULL,
            timeout=BUILDING if "build" in arguments else PATIENCE, env=self.environment | environment,
        )  # fmt: skip
        if check and done.returncode:
            pytest.fail(f"docker compose {' '.join(arguments)}: {done.stderr[-3000:]}\n{self.logs()}")
        return done

    def up(self, *arguments: str, **environment: str) -> None:
        """Start it, or change it."""
        self.compose("up", "-d", *arguments, **environment)

    def down(self) -> None:
        """Remove all of it, volumes included."""
        self.compose("--profile", "tools", "down", "-v", "--timeout", "10", "--remove-orphans")

    def run(self, *arguments: str) -> Event:
        """Submit a run and follow it to its end; return its last event."""
        done = self.compose("run", "--rm", "-T", "fl", "run", "--json", *arguments)
        last: Event = json.loads(done.stdout.splitlines()[-1])
        return last

    def submit(self, *arguments: str, options: Sequence[str] = ()) -> "subprocess.Popen[str]":
        """Submit a run and follow it in the background; `options` are those of `docker compose run`."""
        return subprocess.Popen(
            [*self._command, "run", "--rm", "-T", *options, "fl", "run", "--json", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=self.environment,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def containers(self, service: str, *, all: bool = False) -> list[Container]:
        """Return a service's containers, by their number."""
        labels = [f"com.docker.compose.project={self.name}", f"com.docker.compose.service={service}"]
        found = self.engine.containers.list(all=all, filters={"label": [*labels, "com.docker.compose.oneoff=False"]})
        return sorted(found, key=lambda each: int(each.labels["com.docker.compose.container-number"]))

    @property
    def server(self) -> Container:
        """The server's container, whether it runs or not."""
        (container,) = self.containers("server", all=True)
        return container

    def logs(self) -> str:
        """Return the end of every container's log, for a failed test."""
        labels = {"label": f"com.docker.compose.project={self.name}"}
        ends = [
            f"--- {each.name} ({each.status})\n{each.logs(tail=25).decode(errors='replace')}"
            for each in self.engine.containers.list(all=True, filters=labels)
        ]
        return "\n".join(ends)

    def file(self, path: str) -> bytes | None:
        """Return a file of the server's container, whether it runs or not; None where there is none."""
        for attempt in range(10):  # an archive of a file that grows meanwhile is torn
            try:
                parts, _ = self.server.get_archive(path)
                with tarfile.open(fileobj=io.BytesIO(b"".join(parts))) as archive:
                    content = archive.extractfile(archive.getmembers()[0])
                    return content.read() if content else None
            except NotFound:
                return None
            except (APIError, tarfile.TarError):
                time.sleep(0.2 * attempt)
        pytest.fail(f"{path} cannot be read from the server's container")

    def events(self, run: str, kind: str = "") -> list[Event]:
        """Return the events of a run in the store, those of one kind where one is named."""
        lines = (self.file(f"/store/{run}/events.jsonl") or b"").decode().split("\n")[:-1]
        return [event for event in map(json.loads, lines) if not kind or event["event"] == kind]

    def rounds(self, run: str) -> int:
        """Return how many rounds a run has committed."""
        return max([0, *(event["round"] for event in self.events(run, "round"))])

    def weights(self, run: str, number: int) -> Mapping[str, Any]:
        """Return the arrays of a checkpoint."""
        content = self.file(f"/store/{run}/checkpoints/{number:04d}/arrays.npz")
        assert content is not None, self.logs()
        with np.load(io.BytesIO(content)) as arrays:
            return {name: arrays[name] for name in arrays.files}

    def wait(self, run: str, kind: str = "finished") -> Event:
        """Wait for an event of a run; fail where the run fails instead."""

        def there() -> Event | None:
            events = self.events(run)
            failed = [event for event in events if event["event"] == "failed"]
            if failed and kind != "failed":
                pytest.fail(f"the run failed: {failed[-1]['error']}\n{self.logs()}")
            return next((event for event in reversed(events) if event["event"] == kind), None)

        return until(there, f"{kind} of {run}")  # type: ignore[no-any-return]


def crash(container: Container) -> None:
    """Kill a container's first process from outside, as the kernel does that has no memory left.

    `docker kill` would not do: Docker takes it for a person's wish and does not start the container again.
    """
    container.reload()
    os.kill(container.attrs["State"]["Pid"], signal.SIGKILL)


def freeze(container: Container, *, thaw: bool = False) -> None:
    """Stop every process of a container in its tracks, or let them go on.

    As `docker pause` does, which needs a freezer cgroup that not every machine has.
    """
    number = signal.SIGCONT if thaw else signal.SIGSTOP
    for process in container.top(ps_args="-eo pid,args")["Processes"]:
        os.kill(int(process[0]), number)


def health(container: Container) -> str:
    """Return a container's health as its image's HEALTHCHECK finds it."""
    container.reload()
    return str(container.attrs["State"].get("Health", {}).get("Status", ""))


def restarts(container: Container) -> int:
    """Return how often Docker has started a container again."""
    container.reload()
    return int(container.attrs["RestartCount"])


def fill(disk: Path) -> Path:
    """Leave no room on a disk; return the file that takes it."""
    piece, filler = 1 << 20, disk / "filler"
    with filler.open("wb", buffering=0) as file:
        while piece:
            try:
                if file.write(bytes(piece)) < piece:
                    piece //= 2
            except OSError:
                piece //= 2
    return filler
