"""Commits on a thread: what is announced is on the disk, in order, and what goes wrong is heard."""

import threading
from pathlib import Path

import numpy as np
import pytest

from fl_common.errors import StoreError
from fl_common.settings.schema import Settings
from fl_server.store.commits import Commits
from fl_server.store.runs import Checkpoint, Run

ARRAYS = {"w": np.zeros(3, np.float32)}


def of_round(number: int) -> dict[str, object]:
    return {"event": "round", "round": number}


def test_a_round_is_announced_once_it_is_on_the_disk_and_in_order(tmp_path: Path):
    run = Run.create(tmp_path / "run", Settings())
    told = []

    def observe(event):
        latest = run.latest()
        told.append((event["round"], latest.round if latest else None, threading.current_thread().name))

    commits = Commits(run, observe)
    for number in (1, 2, 3):
        commits.begin(Checkpoint(number, ARRAYS), of_round(number), {"1": number} if number == 2 else None)
    commits.close()
    assert [each[:2] for each in told] == [(1, 1), (2, 2), (3, 3)]
    assert all(name.startswith("commit") for _, _, name in told)
    assert (run.directory / "clients.json").read_text() == '{\n "1": 2\n}'


def test_what_a_commit_met_with_is_raised_at_the_next_one_and_only_once(tmp_path: Path):
    run = Run.create(tmp_path / "run", Settings())

    def observe(event):
        raise StoreError("no room")

    commits = Commits(run, observe)
    commits.begin(Checkpoint(1, ARRAYS), of_round(1), None)
    with pytest.raises(StoreError, match="no room"):
        commits.begin(Checkpoint(2, ARRAYS), of_round(2), None)
    commits.close()
