"""Runs one engine on one workload in a process tree of its own: rounds from its lines, memory and CPU from /proc.

The whole tree is counted, daemons that it detaches included: this process is their reaper (Linux).
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TICKS = os.sysconf("SC_CLK_TCK")
SUBREAPER = 36  # prctl's PR_SET_CHILD_SUBREAPER


def become_reaper() -> None:
    """Be the parent of every orphan below this process, so that nothing an engine leaves behind is lost."""
    if ctypes.CDLL(None, use_errno=True).prctl(SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


class Tree:
    """All processes below this one."""

    def __init__(self) -> None:
        self.peak = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._before = _children_cpu()

    def watch(self) -> None:
        """Begin to sample memory, twice a second."""
        self._thread.start()

    def cpu(self) -> float:
        """Return the CPU seconds that the tree has used: of the living, and of the dead that were waited for."""
        return sum(_cpu(pid) for pid in descendants()) + _children_cpu() - self._before

    def end(self) -> None:
        """Stop sampling, and end what is left of the tree."""
        self._over.set()
        self._thread.join()
        for _ in range(5):
            left = descendants()
            for pid in left:
                _kill(pid)
            time.sleep(0.2)
            _reap()
            if not left:
                return

    def _watch(self) -> None:
        while not self._over.wait(0.5):
            self.peak = max(self.peak, sum(_memory(pid) for pid in descendants()))


def play(command: Sequence[str], *, limit: float, environment: dict[str, str], log: Path) -> dict[str, Any]:
    """Run a command that prints events as lines of JSON; return {"events", "cpu", "peak_mb", "wall", "status"}.

    The clock starts at the event `begin`. cpu: CPU seconds of the tree when each `round` event was read. limit: seconds
    after which it is ended.
    """
    tree, events, cpu = Tree(), [], []
    with log.open("w") as errors:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment, start_new_session=True
        )
        tree.watch()
        timer = threading.Timer(limit, _kill_all)
        for line in process.stdout or ():
            event = _event(line)
            if event is None:
                errors.write(line)
                continue
            if event["event"] == "begin":
                began = time.perf_counter()
                timer.start()
            events.append(event | {"at": time.perf_counter() - began})
            if event["event"] == "round":
                cpu.append(tree.cpu())
            if event["event"] in ("end", "finished"):
                break  # a daemon may hold the pipe open
        wall = time.perf_counter() - began
        timer.cancel()
        try:
            status = process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            status = 0 if events and events[-1]["event"] == "end" else -1
        tree.end()
    return {"events": events, "cpu": cpu, "peak_mb": round(tree.peak), "wall": round(wall, 1), "status": status}


def descendants() -> list[int]:
    """Return the ids of all processes below this one."""
    parents = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields:
                parents[int(entry.name)] = int(fields[1])
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        parent = waiting.pop()
        below = [pid for pid, of in parents.items() if of == parent]
        found += below
        waiting += below
    return found


def _event(line: str) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name: state, parent, ...; [] where the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _cpu(pid: int) -> float:
    fields = _stat(pid)
    return sum(int(each) for each in fields[11:15]) / TICKS if fields else 0.0


def _children_cpu() -> float:
    times = os.times()
    return times.children_user + times.children_system


def _memory(pid: int) -> float:
    """Return a process's share of memory in MB: pages that several map are counted once among them."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024


def _kill_all() -> None:
    for pid in descendants():
        _kill(pid)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
