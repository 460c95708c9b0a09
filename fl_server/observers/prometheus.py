"""Prometheus metrics of a server, from the events of its run store: the store is the truth, also after a restart.

docs/reference/metrics.md describes each of them. Counters sum over all runs of the store; gauges of a run are of the
one that began last.
"""

import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.registry import Collector

from fl_common import __version__
from fl_server.store.log.events_log import LAST, Event
from fl_server.store.log.new_events import NewEvents
from strategies.replies import REASONS

SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
PHASES = ("train", "aggregate", "evaluate", "commit")
Pids = Callable[[], Mapping[str, Iterable[int | None]]]


def registry(store: Path, database: Path, pids: Pids) -> CollectorRegistry:
    """Return the metrics of the runs in `store`, of the nodes in SuperLink's `database`, and of processes by role."""
    outer = CollectorRegistry()
    outer.register(Scrape(store, database, pids))
    return outer


class Scrape(Collector):
    """All metrics, brought up to date when they are asked for."""

    def __init__(self, store: Path, database: Path, pids: Pids) -> None:
        self._inner = CollectorRegistry()
        self._watch = NewEvents(store)
        self._runs = RunMetrics(self._inner)
        self._machine = MachineMetrics(self._inner, store, database, pids)

    def collect(self) -> Iterable[Metric]:
        """Read what is new in the store, look at the machine, and return every metric."""
        for run, event in self._watch.fresh():
            with suppress(TypeError, ValueError, AttributeError):  # in a damaged log: no end of the others' metrics
                self._runs.on_event(run, event)
        self._machine.refresh()
        return self._inner.collect()


class RunMetrics:
    """Counts what the events say."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"parterre_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"parterre_{name}", text, labels, registry=registry)

        self._info = gauge("run_info", "The run that began last; always 1.", "run", "task", "strategy")
        self._running = gauge("run_active", "1 while that run goes on, 0 after its end.")
        self._ends = counter("runs_ended", "Runs that ended.", "outcome")
        self._starts = counter("runs_started", "Starts of runs, resumes included.")
        self._restarts = counter("runs_restarted", "Restarts of runs whose process ended.")
        self._round = gauge("round", "Rounds that the run has completed.")
        self._wanted = gauge("rounds_wanted", "Rounds that the run is to complete.")
        self._rounds = counter("rounds", "Rounds completed.")
        self._repeats = counter("rounds_repeated", "Rounds tried again because they missed their quorum.")
        self._loss = gauge("loss", "Loss of the global model after the last round.", "evaluated_on")
        self._accuracy = gauge("accuracy", "Accuracy of the global model after the last round.", "evaluated_on")
        self._cohort = gauge("cohort_clients", "Clients asked to train in the last round.")
        self._replies = gauge("cohort_replies", "Good replies of the last round.")
        self._rejected = counter("rejected_replies", "Replies left out.", "phase", "reason")
        self._dropped = counter("dropped_replies", "Replies that came after their phase had ended.", "reason")
        self._aside = counter("clients_set_aside", "Clients left out for a while because they kept failing.")
        self._phases = counter("phase_seconds", "Seconds spent in the phases of rounds.", "phase")
        self._seconds = Histogram(
            "parterre_round_seconds", "Seconds that rounds took.", buckets=SECONDS, registry=registry
        )
        self._received = counter("received_bytes", "Arrays received from clients.")
        self._sent = counter("sent_bytes", "Arrays sent to clients.")
        self._parameters = gauge("model_parameters", "Numbers in the model.")
        self._model = gauge("model_bytes", "Size of the model's arrays.")
        for phase in PHASES:
            self._phases.labels(phase)
        for outcome in LAST:
            self._ends.labels(outcome)
        for reason in (*REASONS, "late", "lost", "left"):
            self._rejected.labels("train", reason)
        self._current = ""
        self._takers: dict[str, Callable[[str, Event], object]] = {
            "started": self._started,
            "round": self._on_round,
            "rejected": lambda _, event: self._rejected.labels(event.get("phase", ""), event.get("reason", "")).inc(),
            "dropped": lambda _, event: self._dropped.labels(event.get("reason", "")).inc(),
            "repeat": lambda *_: self._repeats.inc(),
            "restarted": lambda *_: self._restarts.inc(),
            "aside": lambda *_: self._aside.inc(),
        }

    def on_event(self, run: str, event: Event) -> None:
        """Take an event into account. Kinds that are not known are left out, as every reader does."""
        kind = event["event"]
        if kind in LAST:
            self._ended(run, kind)
        elif take := self._takers.get(kind):
            take(run, event)

    def _started(self, run: str, event: Event) -> None:
        self._starts.inc()
        self._current = run
        for each in (self._info, self._loss, self._accuracy):
            each.clear()
        self._info.labels(run, event.get("task", ""), event.get("strategy", "")).set(1)
        self._running.set(1)
        self._round.set(event.get("resumed_from") or 0)
        self._wanted.set(event.get("rounds", 0))
        self._parameters.set(event.get("parameters", 0))
        self._model.set(event.get("bytes", 0))
        self._cohort.set(0)
        self._replies.set(0)

    def _ended(self, run: str, outcome: str) -> None:
        self._ends.labels(outcome).inc()
        if run == self._current:
            self._running.set(0)

    def _on_round(self, run: str, event: Event) -> None:
        self._rounds.inc()
        self._seconds.observe(event.get("seconds") or 0.0)
        self._received.inc(event.get("bytes_up") or 0)
        self._sent.inc(event.get("bytes_down") or 0)
        for phase, seconds in (event.get("phases") or {}).items():
            self._phases.labels(phase).inc(max(0.0, seconds))
        if run != self._current:
            return
        self._round.set(event["round"])
        self._cohort.set(event.get("cohort") or 0)
        self._replies.set(event.get("replies") or 0)
        for gauge, measure in ((self._loss, "loss"), (self._accuracy, "accuracy")):
            value = event.get(measure)
            if value is not None and event.get("evaluated_on"):
                gauge.labels(event["evaluated_on"]).set(value)


class MachineMetrics:
    """Who is connected, and what the server's processes and its disk hold."""

    def __init__(self, registry: CollectorRegistry, store: Path, database: Path, pids: Pids) -> None:
        self._store, self._database, self._pids = store, database, pids
        self._clients = Gauge("parterre_connected_clients", "Clients that are online.", registry=registry)
        self._memory = Gauge(
            "parterre_memory_bytes", "Resident memory of the server's processes.", ("process",), registry=registry
        )
        self._free = Gauge("parterre_store_free_bytes", "Free space on the run store's disk.", registry=registry)
        Gauge("parterre_info", "Version; always 1.", ("version",), registry=registry).labels(__version__).set(1)

    def refresh(self) -> None:
        """Look again."""
        self._clients.set(connected(self._database))
        self._free.set(shutil.disk_usage(self._store).free)
        for role, pids in self._pids().items():
            self._memory.labels(role).set(sum(resident_bytes(pid) for pid in pids if pid))


def connected(database: Path, *, clock: Callable[[], float] = time.time) -> int:
    """Return how many nodes SuperLink's database says are online; 0 where there is none yet."""
    if not database.exists():
        return 0
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=1.0)
    try:
        query = "SELECT count(*) FROM node WHERE online_until > ?"
        return int(connection.execute(query, (clock(),)).fetchone()[0])
    except sqlite3.OperationalError:  # no table yet
        return 0
    finally:
        connection.close()


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process; 0 where it is gone, or where the system has no /proc."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
