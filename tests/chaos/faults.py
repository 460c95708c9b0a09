"""How each kind of fault is done to a federation, and undone."""

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.chaos.federation import Federation, order, send, until
from tests.chaos.schedule import Fault

CLOCK_SECONDS = 7200.0


@dataclass
class Done:
    """A fault that happened, and when."""

    fault: Fault
    at: float


class TooLate(Exception):  # noqa: N818
    """The run has ended before its last faults: a machine may be that slow."""


def inflict(fault: Fault, federation: Federation) -> Done:
    """Do a fault, whose end, if it has one, comes by itself. Waits for its victim; raises TooLate where none comes."""
    time.sleep(fault.after)
    name, _, detail = fault.kind.partition(": ")
    VERBS[name](fault, federation, detail)
    return Done(fault, time.time())


def _found(victim: Callable[[], Any], what: str, federation: Federation) -> Any:
    found = until(lambda: victim() or federation.over, what, federation)
    if federation.over:
        raise TooLate
    return found


def _server(federation: Federation) -> psutil.Process:
    _found(lambda: federation.server.poll() is None, "the server", federation)
    return psutil.Process(federation.server.pid)


def _client(federation: Federation, number: int) -> psutil.Process | None:
    process = federation.clients[number]
    return psutil.Process(process.pid) if process.is_alive() else None


def _child(name: str) -> Callable[[Federation], psutil.Process]:
    return lambda federation: _found(lambda: federation.process(name), f"a {name}", federation)


VICTIMS: dict[str, Callable[[Federation], psutil.Process]] = {
    "SuperLink": _child("superlink"),
    "ServerApp": _child("serverapp"),
    "server": _server,
}


def _victim(fault: Fault, federation: Federation) -> psutil.Process:
    name = fault.kind.partition(" ")[2]
    if name == "client":
        victim: psutil.Process = _found(lambda: _client(federation, fault.client), f"client {fault.client}", federation)
        return victim
    return VICTIMS[name](federation)


def _kill(fault: Fault, federation: Federation, detail: str) -> None:
    send(_victim(fault, federation), signal.SIGKILL)


def _stop(fault: Fault, federation: Federation, detail: str) -> None:
    victim = _victim(fault, federation)
    send(victim, signal.SIGSTOP)
    _later(fault.seconds, lambda: send(victim, signal.SIGCONT))


def _line(mode: str) -> Callable[[Fault, Federation, str], None]:
    def disturb(fault: Fault, federation: Federation, detail: str) -> None:
        federation.proxy.set(fault.client, mode)
        _later(fault.seconds, lambda: federation.proxy.set(fault.client, "pass"))

    return disturb


def _clock(fault: Fault, federation: Federation, detail: str) -> None:
    path = federation.orders(fault.client).with_suffix(".clock")
    order(path, CLOCK_SECONDS if fault.seconds > 2 else -CLOCK_SECONDS)
    federation.clocks[fault.client] = time.monotonic() + 2 * fault.seconds


def _lie(fault: Fault, federation: Federation, detail: str) -> None:
    order(federation.orders(fault.client).with_suffix(".hostile"), detail)


def _fill(fault: Fault, federation: Federation, detail: str) -> None:
    path = federation.store / "filler"
    fill(path)
    _later(fault.seconds, path.unlink)


def fill(path: Path) -> None:
    """Leave no room on the disk of `path`."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    size = 1 << 20
    while size:
        try:
            os.write(descriptor, bytes(size))
        except OSError:
            size //= 2
    os.close(descriptor)


def _later(seconds: float, undo: Callable[[], object]) -> None:
    threading.Timer(seconds, undo).start()


VERBS: dict[str, Callable[[Fault, Federation, str], None]] = {
    **{f"kill {name}": _kill for name in ("client", *VICTIMS)},
    **{f"stop {name}": _stop for name in ("client", *VICTIMS)},
    "cut connection": _line("cut"),
    "delay connection": _line("delay"),
    "throttle connection": _line("throttle"),
    "clock jump": _clock,
    "hostile": _lie,
    "full disk": _fill,
}
