"""One server at a time: the lock of a server's directory."""

import os
import subprocess
import sys

import pytest

from fl_common.errors import StoreError
from fl_server.store.disk.server_lock import alone, sweep


def test_a_second_server_is_refused_and_told_who_holds_the_place(tmp_path):
    with alone(tmp_path / "lock", "the store /srv/runs") as crashed:
        assert not crashed
        with (
            pytest.raises(
                StoreError, match=rf"the store /srv/runs is in use by another server \(process {os.getpid()}\)"
            ),
            alone(tmp_path / "lock", "the store /srv/runs"),
        ):
            pass
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_killed_server_is_free_and_says_that_it_was_killed(tmp_path):
    code = f"""
import os, signal
from pathlib import Path
from fl_server.store.disk.server_lock import alone, sweep
with alone(Path({str(tmp_path / "lock")!r}), "the store"):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    with alone(tmp_path / "lock", "the store") as crashed:
        assert crashed
    with alone(tmp_path / "lock", "the store") as crashed:
        assert not crashed


def test_the_temporary_directory_of_a_killed_server_is_removed_and_nothing_else(tmp_path):
    note, own = tmp_path / "temporary", tmp_path / "pymp-own"
    for name in ("pymp-killed", "pymp-own", "precious"):
        (tmp_path / name).mkdir()
    sweep(note, tmp_path / "pymp-killed")
    sweep(note, own)
    assert not (tmp_path / "pymp-killed").exists()
    note.write_text(str(tmp_path / "precious"))
    sweep(note, own)
    sweep(note, own)
    assert own.is_dir()
    assert (tmp_path / "precious").is_dir()
