"""Real processes on loopback: started by a test, and stopped by it whatever happens."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

FL = str(Path(sys.executable).parent / "fl")
PATIENCE = 600.0

Event = dict[str, Any]
Start = Callable[..., subprocess.Popen[str]]


def environment(**more: str) -> dict[str, str]:
    others = {key: value for key, value in os.environ.items() if not key.startswith(("FL_", "FLWR_"))}
    kept = others | {"FL_RUN_KEY": os.environ["FL_RUN_KEY"]}
    return kept | {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "PYTHONUNBUFFERED": "1"} | more


def fl(*arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    return subprocess.run(
        [FL, *arguments], capture_output=True, text=True, timeout=PATIENCE, env=environment(**more), check=False
    )


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a command in the background; what is left of it and its children at the end of the test is killed."""
    with processes(tmp_path) as begin:
        yield begin


@contextmanager
def processes(folder: Path) -> Iterator[Start]:
    """Give a function that starts a command, whose output goes into `folder`; kill what is left at the end."""
    started: list[subprocess.Popen[str]] = []

    def begin(*command: str, log: str = "", **more: str) -> "subprocess.Popen[str]":
        out = (folder / (log or f"process-{len(started)}.log")).open("w")
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, text=True, env=environment(**more))
        started.append(process)
        return process

    try:
        yield begin
    finally:
        for process in started:
            for each in [*descendants(process.pid), *([psutil.Process(process.pid)] if process.poll() is None else [])]:
                try:
                    each.kill()
                except psutil.NoSuchProcess:
                    continue
            process.wait()


def descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def events(run: Path, kind: str = "") -> list[Event]:
    path = run / "events.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [event for event in map(json.loads, lines) if not kind or event["event"] == kind]


def until(condition: Callable[[], Any], what: str, process: "subprocess.Popen[str] | None" = None) -> Any:
    """Wait for a condition; fail with `what` when patience ends, or when the process that should bring it about has."""
    limit = time.monotonic() + PATIENCE
    while not (value := condition()):
        if process is not None and process.poll() is not None and not condition():
            pytest.fail(f"the process ended (exit code {process.returncode}) before {what}")
        if time.monotonic() > limit:
            pytest.fail(f"waited {PATIENCE:g} s for {what}")
        time.sleep(0.05)
    return value


def gone(processes: list[psutil.Process]) -> bool:
    return not [each for each in processes if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


def stop(process: "subprocess.Popen[str]", number: int = signal.SIGTERM) -> int:
    process.send_signal(number)
    return process.wait(timeout=PATIENCE)
