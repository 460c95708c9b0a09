"""How long a person waits, and what idles: `fl --help`, `fl up` with 4 clients to its first round, memory, idle CPU.

Memory is each process's peak resident set (VmHWM, shared pages counted in every process) and, late in the run, its
proportional share (PSS, shared pages divided among those that share them). A client is also started on its own, as in a
deployment, and left idle at a server for IDLE_SECONDS: its CPU time is a share of one core.
Run `python benchmarks/startup.py`; it writes benchmarks/results/startup.json.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
import psutil

from fl_server.processes.listening import free_ports

FL = str(Path(sys.executable).parent / "fl")
RESULT = Path(__file__).parent / "results" / "startup.json"
ENVIRONMENT = os.environ | {"FLWR_TELEMETRY_ENABLED": "0"}
REPEATS = 3
IDLE_SECONDS = 30


def help_seconds() -> float:
    """One `fl --help`."""
    start = time.perf_counter()
    subprocess.run([FL, "--help"], check=True, capture_output=True, env=ENVIRONMENT)
    return time.perf_counter() - start


def up(directory: Path) -> dict[str, Any]:
    """One `fl up` with four clients: seconds to its first events, and the memory of its processes."""
    start = time.perf_counter()
    command = [FL, "up", "--clients", "4", "--rounds", "30", "--out", str(directory), "--json", "--set", "plot=false"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    seen: dict[str, float] = {}
    memory: dict[str, list[dict[str, float]]] = {}
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        seen.setdefault(event["event"], time.perf_counter() - start)
        if event["event"] == "round" and event["round"] == 25:
            memory = memory_of(process.pid, directory)
    if process.wait() != 0:
        raise SystemExit("fl up failed")
    return {"to_started_s": seen["started"], "to_first_round_s": seen["round"], "whole_s": time.perf_counter() - start,
            "memory_mb": memory}  # fmt: skip


def memory_of(pid: int, directory: Path) -> dict[str, list[dict[str, float]]]:
    """Peak resident and proportional set of each process, by what it is: told by the log that it writes."""
    found: dict[str, list[dict[str, float]]] = {}
    for process in psutil.Process(pid).children(recursive=True):
        log = Path(f"/proc/{process.pid}/fd/1").readlink().name
        role = log.removesuffix(".log").split("-")[0] if log.endswith(".log") else "helper"
        found.setdefault(role, []).append(memory(process.pid))
    return found


def memory(pid: int) -> dict[str, float]:
    """Megabytes of one process."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    share = next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
    return {"peak_rss": round(peak / 1000, 1), "pss": round(share / 1000, 1)}


def alone(directory: Path) -> dict[str, float]:
    """A client of its own: peak memory after a run, and CPU when idle."""
    fleet, control, appio = free_ports(3)
    ports = ["--fleet-port", str(fleet), "--control-port", str(control), "--appio-port", str(appio)]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": ENVIRONMENT}
    store, token = ("--store", str(directory)), directory.with_name("token")
    for command in (["certs", "init", *store], ["enroll", "token", *store, "--file", str(token)]):
        subprocess.run([FL, *command], check=True, **quiet)
    server = subprocess.Popen([FL, "server", *store, *ports], **quiet)
    own = ["--token-file", str(token), "--state", str(directory.with_name("state"))]
    client = subprocess.Popen([FL, "client", "--server", f"127.0.0.1:{fleet}", *own], **quiet)
    try:
        run = ["run", *store, "--server", f"127.0.0.1:{control}", "--rounds", "3", "--set", "min_clients=1"]
        time.sleep(5)
        subprocess.run([FL, *run], check=True, capture_output=True, env=ENVIRONMENT)
        time.sleep(20)  # polling backs off in proportion to the time since the last message
        before = sum(psutil.Process(client.pid).cpu_times()[:2])
        time.sleep(IDLE_SECONDS)
        used = sum(psutil.Process(client.pid).cpu_times()[:2]) - before
        return memory(client.pid) | {"idle_cpu_percent": round(100 * used / IDLE_SECONDS, 2)}
    finally:
        client.terminate()
        server.terminate()
        client.wait()
        server.wait()


def main() -> None:
    """Measure and write."""
    helps = [help_seconds() for _ in range(5)]
    with tempfile.TemporaryDirectory() as scratch:
        ups = [up(Path(scratch) / str(number)) for number in range(REPEATS)]
        single = alone(Path(scratch) / "store")
    keys = ("to_started_s", "to_first_round_s", "whole_s")
    result = machine.facts() | {
        "help_median_s": machine.median(helps),
        "up_4_clients_median": {key: machine.median([each[key] for each in ups], 2) for key in keys},
        "up_4_clients_memory_mb": ups[-1]["memory_mb"],
        "client_alone": single,
        "how": __doc__,
    }
    print(json.dumps(result, indent=2))
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
