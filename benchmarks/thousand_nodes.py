"""A thousand clients at once on one server: enrolling, joining, and a round over a hundred of them.

Real gRPC on loopback, TLS and keys on. The clients are light: connections of their own, driven by one process, that
answer with the model they were sent; nothing is trained, so what is measured is the server and the network. CPU is that
of the server's processes; the clients' own is beside it, for they share the machine's cores.
Run `python benchmarks/thousand_nodes.py [--nodes 1000] [--cohort 100] [--rounds 3]`; it writes benchmarks/results and
the table in docs/explanation/many-clients.md. `--page` writes the page from the result; it measures nothing.
"""

import argparse
import heapq
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import grpc
import psutil
from flwr.app import Message, MetricRecord, RecordDict

sys.path.insert(0, str(Path(__file__).parents[1]))

import fl_client.link.connection as connections
from benchmarks import machine
from fl_client.link.connection import Connection
from fl_client.link.enrolment import enrol, fetch_authority
from fl_client.link.node import Pace
from fl_common.messages import packed_arrays
from fl_common.trust import keys
from fl_common.trust.tokens import Token
from fl_server.processes.listening import free_ports

FL = str(Path(sys.executable).parent / "fl")
RESULT = Path(__file__).parent / "results" / "thousand_nodes.json"
PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "many-clients.md"
START, END = "<!-- measured:start -->\n", "<!-- measured:end -->\n"
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "PYTHONUNBUFFERED": "1"}
PATIENCE = 600.0
THREADS = 48
IDLE_SECONDS = 55


def own_channel(address: str, *, insecure: bool, root_certificates: bytes, **_: Any) -> grpc.Channel:
    """Return a channel with a TCP connection of its own: gRPC gives all channels of a process one otherwise."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(root_certificates), options=options)


class Light:
    """A client without a model: it joins, polls, keeps its heartbeat, and sends back what it is sent."""

    def __init__(self, address: str, authority: bytes, token: Token) -> None:
        self.key = keys.generate()
        self._enrol = lambda: enrol(address, token, self.key, authority)
        self._make = lambda: Connection(address, root_certificates=authority, key=self.key)
        self.answered = 0
        self._busy = self._beaten = time.monotonic()
        self._pace = Pace()

    def enrol(self) -> None:
        """Register the key by the token."""
        self._enrol()

    def join(self) -> None:
        """Connect and go online."""
        self.connection = self._make()
        self.connection.join()

    def step(self) -> float:
        """Do what is due; return the seconds until the next step."""
        now = time.monotonic()
        if now - self._beaten > 0.7 * self.connection.heartbeat_seconds:
            self.connection.beat()
            self._beaten = now
        envelope = self.connection.poll()
        if envelope is None:
            return self._pace.pause(now - self._busy, self.connection.poll_seconds)
        message = self.connection.fetch(envelope)
        arrays = packed_arrays.unpack(message.content)["arrays"]
        metrics = MetricRecord({"num-examples": 10, "loss": 0.5, "accuracy": 0.5, "seconds": 0.0})
        self.connection.send(
            Message(packed_arrays.pack(RecordDict({"arrays": arrays, "metrics": metrics})), reply_to=message), 0.0
        )
        self._busy = time.monotonic()
        self.answered += 1
        return 0.0


class Crowd:
    """All the clients, driven by a pool of threads: whoever is due next is next."""

    def __init__(self, members: list[Light]) -> None:
        self.members = members
        self.errors: list[str] = []
        self._due = [(time.monotonic() + random.random(), number) for number in range(len(members))]
        heapq.heapify(self._due)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(THREADS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(40)

    def _work(self) -> None:
        while not self._ended.is_set():
            with self._lock:
                due, number = heapq.heappop(self._due) if self._due else (time.monotonic() + 0.05, -1)
            if number < 0 or self._ended.wait(max(0.0, due - time.monotonic())):
                continue
            try:
                wait = self.members[number].step()
            except grpc.RpcError as error:
                self.errors.append(f"{error.code().name}: {error.details()}")
                wait = 1.0
            with self._lock:
                heapq.heappush(self._due, (time.monotonic() + wait, number))


@contextmanager
def server(directory: Path) -> Any:
    """A server, its ports and its process."""
    fleet, control, appio = free_ports(3)
    ports = ["--fleet-port", str(fleet), "--control-port", str(control), "--appio-port", str(appio)]
    with (directory / "server.log").open("w") as log:
        command = [FL, "server", "--store", str(directory / "store"), *ports]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | QUIET)
    try:
        until(lambda: "server is up" in (directory / "server.log").read_text(), "the server")
        yield fleet, control, process
    finally:
        process.terminate()
        process.wait(60)


def until(condition: Any, what: str) -> None:
    limit = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > limit:
            raise TimeoutError(f"waited {PATIENCE:g} s for {what}")
        time.sleep(0.05)


def used(process: subprocess.Popen[Any]) -> tuple[float, int]:
    """Return the seconds of CPU and the bytes of memory of a server and its children."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    seconds = sum(sum(each.cpu_times()[:2]) for each in family)
    return seconds, sum(each.memory_full_info().pss for each in family)


class Clock:
    """Seconds, CPU of the server and of the clients, and the server's memory, of one part of the measurement."""

    def __init__(self, process: subprocess.Popen[Any]) -> None:
        self._process = process
        self._mark()

    def _mark(self) -> None:
        self._began, self._cpu, self._own = time.perf_counter(), used(self._process)[0], time.process_time()

    def lap(self) -> dict[str, float]:
        cpu, memory = used(self._process)
        figures = {
            "seconds": round(time.perf_counter() - self._began, 2),
            "server_cpu_seconds": round(cpu - self._cpu, 2),
            "clients_cpu_seconds": round(time.process_time() - self._own, 2),
            "server_memory_mb": round(memory / 1e6),
        }
        self._mark()
        return figures


def measure(nodes: int, cohort: int, rounds: int) -> dict[str, Any]:
    """Enrol, join, idle, and run."""
    connections.create_channel = own_channel
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as (fleet, control, process):
        address, store = f"127.0.0.1:{fleet}", str(Path(folder) / "store")
        made = subprocess.run([FL, "enroll", "token", "--uses", str(nodes), "--store", store],
                              check=True, capture_output=True, text=True, env=os.environ | QUIET)  # fmt: skip
        token = Token.parse(made.stdout.strip())
        authority = fetch_authority(address, token.fingerprint)
        members = [Light(address, authority, token) for _ in range(nodes)]
        clock = Clock(process)
        figures: dict[str, Any] = {"before": {"server_memory_mb": round(used(process)[1] / 1e6)}}
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(Light.enrol, members))
            figures["enrol"] = clock.lap()
            list(pool.map(Light.join, members))
            figures["join"] = clock.lap()
        crowd = Crowd(members)
        crowd.start()
        time.sleep(IDLE_SECONDS)  # an idle client polls ever more rarely, until the server's spacing is reached
        clock.lap()
        time.sleep(10)
        figures["ten_seconds_idle"] = clock.lap()
        done = subprocess.run(
            [FL, "run", "--server", f"127.0.0.1:{control}", "--store", store, "--json", "--rounds", str(rounds),
             "--set", f"min_clients={nodes}", "--set", f"clients_per_round={cohort}", "--set", "fraction_evaluate=0",
             "--set", "wait_seconds=120", "--set", "tensorboard=false", "--set", "plot=false"],
            capture_output=True, text=True, timeout=PATIENCE, env=os.environ | QUIET, check=False,
        )  # fmt: skip
        figures["run"] = clock.lap()
        crowd.stop()
        events = [json.loads(line) for line in done.stdout.splitlines()]
        if not events or events[-1]["event"] != "finished":
            raise RuntimeError(f"the run did not finish: {done.stderr[-2000:]} {crowd.errors[-3:]}")
        taken = [event for event in events if event["event"] == "round"]
        figures["rounds"] = [
            {key: event[key] for key in ("seconds", "cohort", "replies", "rejected")} for event in taken
        ]
        refused = [event for event in events if event["event"] == "rejected"]
        figures["rejected"] = sorted({f"{event['reason']}: {event['detail']}" for event in refused})
        figures["errors_seen_by_clients"] = crowd.errors
        figures["answered"] = sum(member.answered for member in members)
        figures["connections"] = sum(each.status == "ESTABLISHED" and each.laddr.port == fleet
                                     for each in psutil.net_connections("tcp"))  # fmt: skip
        for member in members:
            member.connection.__exit__(None, None, None)
        return figures


def table(result: dict[str, Any]) -> str:
    """Return the page's part on the figures."""
    on, versions, rounds = result["machine"], result["versions"], result["rounds"]
    parts = {
        f"{result['nodes']:,} keys are enrolled": result["enrol"],
        "they join: each has a connection of its own, with TLS": result["join"],
        "ten seconds idle": result["ten_seconds_idle"],
        f"a run of {len(rounds)} rounds over {result['cohort']} of them, from `fl run` to its end": result["run"],
    }
    seconds = [each["seconds"] for each in rounds]
    lines = [
        f"{result['date']}, {on['cpu']}, {on['cores']} cores, {on['memory_gb']:.0f} GB, flwr {versions['flwr']}, "
        f"grpcio {versions['grpcio']}, Python {versions['python']}, commit {result['commit']}:",
        "",
        "| | seconds | CPU of the server's processes, s | of the clients' process, s | memory of the server, MB |",
        "|---|---|---|---|---|",
        f"| before | | | | {result['before']['server_memory_mb']} |",
        *(
            f"| {name} | {part['seconds']:.1f} | {part['server_cpu_seconds']:.1f} | {part['clients_cpu_seconds']:.1f} "
            f"| {part['server_memory_mb']:.0f} |"
            for name, part in parts.items()
        ),
        "",
        f"A round took {median(seconds):.1f} s (median of {len(seconds)}; {min(seconds):.1f} to {max(seconds):.1f}); "
        f"each had {result['cohort']} replies; {sum(each['rejected'] for each in rounds)} were rejected. "
        f"{result['connections']:,} connections were open at the end.",
    ]
    return "\n".join(lines) + "\n"


def page(text: str, result: dict[str, Any]) -> str:
    """Return the page's text with the figures between their markers."""
    before, _, rest = text.partition(START)
    return before + START + table(result) + END + rest.partition(END)[2]


def main() -> None:
    """Measure, show and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--cohort", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--page", action="store_true", help="write the page from the result; measures nothing")
    arguments = parser.parse_args()
    if arguments.page:
        PAGE.write_text(page(PAGE.read_text(), json.loads(RESULT.read_text())))
        return
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # so that the server is stopped too
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    figures = measure(arguments.nodes, arguments.cohort, arguments.rounds)
    facts = machine.facts() | {"nodes": arguments.nodes, "cohort": arguments.cohort} | figures
    arguments.out.write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts, indent=1))
    if arguments.out == RESULT:
        PAGE.write_text(page(PAGE.read_text(), facts))


if __name__ == "__main__":
    main()
