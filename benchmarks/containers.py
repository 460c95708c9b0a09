"""Containers: what images weigh, how long `docker compose up` takes, what a client costs, rounds of 2 to 16 clients.

`python benchmarks/containers.py sizes|up|idle|scale ...` measures the parts named (default: all) with the images that
`docker compose build` built from this checkout, and writes them into benchmarks/results/containers.json.

Memory is a container's working set: its cgroup's usage without the page cache that can be given back. Idle CPU is the
cgroup's CPU time over IDLE_SECONDS, as a share of one core. `up` counts from the command to the events' own times.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import docker
import machine

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "containers.json"
PROJECT = "parterre-bench"
IDLE_SECONDS = 40
LARGEST = 8  # packages named of each image
COUNTS = (2, 4, 8, 16)
PATIENCE = 200

engine = docker.from_env()


def compose(*arguments: str, **environment: str) -> str:
    """Run `docker compose ARGUMENTS` on the project of this benchmark; return its output."""
    command = ["docker", "compose", "-p", PROJECT, "-f", str(ROOT / "compose.yaml"), *arguments]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | environment, stdin=subprocess.DEVNULL
    )
    return done.stdout


@contextmanager
def stack(clients: int, **environment: str) -> Iterator[float]:
    """Start a stack, give the time at which that was asked for, and remove it."""
    compose("down", "-v", "--timeout", "5")
    started = time.time()
    compose("up", "-d", "--no-build", "--scale", f"client={clients}", **environment)
    try:
        yield started
    finally:
        compose("down", "-v", "--timeout", "5")


def events(run: str) -> list[dict[str, Any]]:
    """Return the events of a run so far."""
    text = compose("exec", "-T", "server", "sh", "-c", f"cat /store/{run}/events.jsonl 2>/dev/null || true")
    return [json.loads(line) for line in text.splitlines()]


def wait(run: str) -> list[dict[str, Any]]:
    """Return the events of a run once it has ended."""
    limit = time.monotonic() + PATIENCE
    while time.monotonic() < limit:
        found = events(run)
        if found and found[-1]["event"] in ("finished", "failed"):
            return found
        time.sleep(0.5)
    raise TimeoutError(compose("logs", "--tail", "20"))


def clients() -> list[Any]:
    """Return the client containers."""
    labels = [f"com.docker.compose.project={PROJECT}", "com.docker.compose.service=client"]
    return engine.containers.list(filters={"label": labels})


def working_set(stats: dict[str, Any]) -> float:
    """Return megabytes in use, without page cache that can be given back."""
    memory = stats["memory_stats"]
    cache = memory["stats"].get("total_inactive_file", memory["stats"].get("inactive_file", 0))
    return round((memory["usage"] - cache) / 1e6, 1)


def sizes() -> dict[str, Any]:
    """Return each image's size, its layers, and its largest packages, in megabytes."""
    found = {}
    for role in ("server", "client"):
        image = engine.images.get(f"parterre-{role}")
        layers = [(each["Size"] / 1e6, each["CreatedBy"][:60]) for each in image.history() if each["Size"] > 1e5]
        listing = "cd /usr/local/lib/python3.11/site-packages && du -sk -- * | sort -rn"
        lines = engine.containers.run(image, ["-c", listing], entrypoint="sh", remove=True).decode().splitlines()
        packages = [(int(size) / 1e3, name) for size, name in (line.split("\t") for line in lines)]
        found[role] = {
            "mb": round(image.attrs["Size"] / 1e6),
            "layers_mb": {text: round(size, 1) for size, text in layers},
            "packages_mb": {name: round(size, 1) for size, name in packages[:LARGEST]},
            "other_packages_mb": round(sum(size for size, _ in packages[LARGEST:]), 1),
        }
    return found


def up() -> dict[str, Any]:
    """Return seconds from `docker compose up`, with built images, to the first round and to the end of ten."""
    with stack(3) as started:
        found = wait("digits")
        rounds = [event for event in found if event["event"] == "round"]
        return {
            "first_round_s": round(_at(rounds[0]) - started, 1),
            "end_s": round(_at(found[-1]) - started, 1),
            "rounds": len(rounds),
            "accuracy": found[-1]["accuracy"],
        }


def idle() -> dict[str, Any]:
    """Return memory and CPU of clients that have trained and now wait, and of the server."""
    with stack(3):
        wait("digits")
        time.sleep(15)  # a node that has been idle for a while polls less
        containers = [*clients(), engine.containers.get(f"{PROJECT}-server-1")]
        before = [each.stats(stream=False) for each in containers]
        time.sleep(IDLE_SECONDS)
        after = [each.stats(stream=False) for each in containers]
    shares = [_cpu_share(*pair) for pair in zip(before, after, strict=True)]
    memory = [working_set(each) for each in after]
    return {
        "client_memory_mb": machine.median(memory[:-1]),
        "client_cpu_of_a_core": machine.median(shares[:-1], 4),
        "server_memory_mb": memory[-1],
        "server_cpu_of_a_core": shares[-1],
    }


def scale() -> dict[str, Any]:
    """Return the median seconds of a round (after the first three) and the memory of all clients, by their number."""
    found = {}
    for count in COUNTS:
        more = {"FL_MIN_CLIENTS": str(count), "FL_PARTITIONS": str(count), "FL_ROUNDS": "10", "FL_LOCAL_EPOCHS": "1"}
        with stack(count, **more):
            rounds = [event for event in wait("digits") if event["event"] == "round"]
            memory = [working_set(each.stats(stream=False)) for each in clients()]
        found[count] = {
            "round_s": machine.median([event["seconds"] for event in rounds[3:]]),
            "clients_memory_mb": round(sum(memory)),
        }
    return found


def _at(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()


def _cpu_share(before: dict[str, Any], after: dict[str, Any]) -> float:
    used = after["cpu_stats"]["cpu_usage"]["total_usage"] - before["cpu_stats"]["cpu_usage"]["total_usage"]
    seconds = (datetime.fromisoformat(after["read"][:26]) - datetime.fromisoformat(before["read"][:26])).total_seconds()
    return round(used / 1e9 / seconds, 4)


PARTS: dict[str, Callable[[], dict[str, Any]]] = {"sizes": sizes, "up": up, "idle": idle, "scale": scale}

if __name__ == "__main__":
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for part in sys.argv[1:] or PARTS:
        print(part, measured := PARTS[part](), flush=True)
        result[part] = measured | {"facts": machine.facts()}
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
