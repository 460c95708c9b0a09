"""A full disk of one MiB: the run waits for room and goes on, or ends with its rounds as they were."""

import threading

import numpy as np
import pytest

from fl_common.errors import StoreError
from fl_common.settings.schema import Settings
from fl_server.store import checkpoints
from fl_server.store.disk.disk_wait import Patience
from fl_server.store.runs import Checkpoint, Run
from tests.server.store.test_checkpoints import small_disk  # noqa: F401  a fixture


def checkpoint(number):
    return Checkpoint(number, {"w": np.full(60_000, number, np.float32)})  # a quarter of the disk


def event(number):
    return {"event": "round", "round": number, "loss": 1.0 / number}


def fill(disk):
    """Leave no room at all."""
    path = disk / "filler"
    with path.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                return path


def test_a_round_waits_for_room_and_is_committed_once(small_disk):  # noqa: F811
    run = Run.create(small_disk / "run", Settings(keep=1, keep_best=""))
    run.commit(checkpoint(1), event(1))
    filler = fill(small_disk)
    seen = []

    def free(said):
        seen.append(said)
        threading.Timer(0.5, filler.unlink).start()

    run.patience = Patience(60.0, free)
    run.commit(checkpoint(2), event(2))
    assert [said["event"] for said in seen] == ["paused"]
    assert "disk is full" in seen[0]["reason"]
    assert [each["round"] for each in run.rounds()] == [1, 2]
    assert checkpoints.numbers(run.directory / "checkpoints") == [2]
    noted = [each for each in run.events() if each["event"] == "paused"]
    assert len(noted) == 1
    assert noted[0]["seconds"] > 0


def test_patience_that_ends_leaves_every_committed_round(small_disk):  # noqa: F811
    run = Run.create(small_disk / "run", Settings(keep=3))
    run.commit(checkpoint(1), event(1))
    filler = fill(small_disk)
    time, waits = [0.0], []

    def sleep(seconds):
        waits.append(seconds)
        time[0] += seconds

    run.patience = Patience(5.0, clock=lambda: time[0], sleep=sleep)
    with pytest.raises(StoreError, match=r"round 2 .*disk is full"):
        run.commit(checkpoint(2), event(2))
    assert sum(waits) == 5.0
    filler.unlink()
    again = Run.open(run.directory)
    assert again.latest().round == 1
    assert (again.latest().arrays["w"] == 1).all()
    again.commit(checkpoint(2), event(2))
    assert [each["round"] for each in again.rounds()] == [1, 2]


def test_what_is_no_full_disk_is_not_waited_for(tmp_path):
    patience = Patience(60.0, pytest.fail, sleep=pytest.fail)

    def refuse():
        raise StoreError("the file system is read-only") from OSError(30, "Read-only file system")

    with pytest.raises(StoreError, match="read-only"):
        patience.wait(refuse)
