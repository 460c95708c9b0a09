"""What must be true after a chaos run, whatever happened in it."""

import os
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from fl_server.store import checkpoints
from fl_server.store.runs import Run
from tests.chaos.ledger import Ledger, digest
from tests.chaos.member import REASONS
from tests.integration.conftest import events

ENDING_SECONDS = 30.0
GROWTH = 1.10
NEVER_CAME = ("late", "lost", "error")


def rounds_are_there_once_and_in_order(run: Path, rounds: int) -> None:
    """Every committed round has one event and one whole checkpoint."""
    assert [event["round"] for event in events(run, "round")] == list(range(1, rounds + 1))
    assert checkpoints.numbers(run / "checkpoints") == list(range(1, rounds + 1))
    for number in range(1, rounds + 1):
        checkpoint, event = checkpoints.read(run / "checkpoints" / f"{number:04d}")
        assert checkpoint.round == event["round"] == number
    assert Run.open(run).status == "finished"


def weights_are_the_mean_of_what_was_accepted(run: Path, folder: Path, rounds: int) -> int:
    """Each round's model is the mean of honest updates that were made from the round before's; return how many."""
    ledger, before, count = Ledger(folder), "", 0
    for number in range(1, rounds + 1):
        arrays = checkpoints.read(run / "checkpoints" / f"{number:04d}")[0].arrays
        updates = [ledger.update(name) for name in ledger.round(number)]  # a lie is in no ledger
        count += len(updates)
        assert len({id(update) for update in updates}) >= 3, f"round {number} is below its quorum"
        assert {update["base"] for update in updates} == ({before} if before else {updates[0]["base"]}), (
            f"round {number}"
        )
        total = sum(update["examples"] for update in updates)
        for name, array in arrays.items():
            mean = sum(update["examples"] / total * update["arrays"][name].astype(np.float64) for update in updates)
            np.testing.assert_allclose(array, mean, rtol=0, atol=1e-6, err_msg=f"round {number}, {name}")
        before = digest(arrays)
    return count


def lies_are_called_what_they_are(folder: Path, rejected: Iterable[Mapping[str, Any]]) -> int:
    """What is said of a lie is what is wrong with it, or that it never came; return how many were recognised.

    That none gets in is what the weights show. Whether one comes before its deadline depends on the machine.
    """
    told, recognised = Ledger(folder).lies(), 0
    for event in rejected:
        kinds = told.get((event["node"], event["round"]), ()) if event["phase"] == "train" else ()
        if kinds and event["reason"] not in NEVER_CAME:
            assert event["reason"] in {REASONS[kind] for kind in kinds}, event
            recognised += 1
    return recognised


def memory_is_level(early: Mapping[str, int], late: Mapping[str, int]) -> None:
    """The server's processes hold at most a tenth more than they did."""
    assert early.keys() == late.keys(), "a process is missing, and what it would hold"
    assert sum(late.values()) <= GROWTH * sum(early.values()), (early, late)


def nothing_is_left(seen: set[psutil.Process], ports: list[int], store: Path, temporary: Path) -> None:
    """No process, port, temporary file or lock is left."""
    limit = time.monotonic() + ENDING_SECONDS  # a helper that is still importing reads only then that it is to end
    while (alive := _alive(seen)) and time.monotonic() < limit:
        time.sleep(0.1)
    assert not alive, [each.cmdline() for each in alive]
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                raise AssertionError(f"port {port} of {ports} is taken: {_holders(port)}") from None
    assert not (store / ".superlink" / "server.lock").exists()
    for run in store.glob("*/settings.toml"):
        assert not Run.open(run.parent).is_locked()
    unfinished = [path for path in store.rglob(".*") if path.name[1:2].isdigit() or path.name.startswith(".settings")]
    assert not unfinished, unfinished
    left = [path for path in temporary.rglob("*") if path.is_file() or path.is_socket()]
    assert not left, left


def _holders(port: int) -> list[str]:
    """Return who has a socket on this port, in which state: another program of this machine's may have drawn it."""
    found = [each for each in psutil.net_connections("tcp") if each.laddr and each.laddr.port == port]
    return [f"{each.status} {psutil.Process(each.pid).cmdline() if each.pid else 'nobody'}" for each in found]


def _alive(seen: set[psutil.Process]) -> list[psutil.Process]:
    """Return what still runs, but for the helper that this very process forks its clients from."""
    found = []
    for each in seen:
        try:
            if each.is_running() and each.status() != psutil.STATUS_ZOMBIE and each.ppid() != os.getpid():
                found.append(each)
        except psutil.NoSuchProcess:
            continue
    return found
