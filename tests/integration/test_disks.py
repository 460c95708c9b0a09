"""A disk that turns read-only, a directory that is taken away, under a live federation: no round is lost."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fl_server.store.runs import Run
from tests.integration.conftest import Start, fl, stop, until
from tests.support.fleet import Fleet

LONG = ("--rounds", "60", "--set", "min_clients=1", "--set", "fraction_evaluate=0", "--set", "plot=false")
LIMITED = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")


@contextmanager
def read_only(directory: Path, view: Path) -> Iterator[None]:
    """Lay a read-only view of a directory over it: what is opened from now on cannot be written.

    The view is made elsewhere first: a mount through which somebody writes already cannot be made read-only.
    """
    view.mkdir()
    laid = 0
    try:
        for arguments in (("--bind", directory, view), ("-o", "remount,ro,bind", view), ("--bind", view, directory)):
            done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"cannot make a directory read-only here ({done.stderr.strip()}); run as root")
            laid += 1
        yield
    finally:
        for mounted in ([], [view], [view], [directory, view])[laid]:
            subprocess.run(["umount", "--lazy", str(mounted)], check=True)  # the server may be reading through it


def whole(run: Path, rounds: int) -> bool:
    """Say whether every round is there once and in order, and the last one's checkpoint is good."""
    opened = Run.open(run)
    newest = opened.latest()
    numbers = [event["round"] for event in opened.events() if event["event"] == "round"]
    return numbers == list(range(1, rounds + 1)) and newest is not None and newest.round == rounds


def refusals(fleet: Fleet) -> list[str]:
    """What the server said of runs, or of its SuperLink's database, that it cannot write."""
    words = ("cannot lock", "a database cannot be written: the file system is read-only")
    return [line for line in fleet.log("server").splitlines() if any(word in line for word in words)]


@pytest.mark.slow
def test_a_run_whose_file_system_turns_read_only_says_so_and_goes_on_when_it_can_be_written(
    start: Start, tmp_path: Path
) -> None:
    fleet = Fleet(start, tmp_path)
    fleet.client("client-0")
    run = fleet.running(*LONG, "--set", f"out={fleet.store}/run")
    until(lambda: len(fleet.events("run", "round")) >= 3, "three rounds", run)
    with read_only(fleet.store / "run", tmp_path / "first-view"):  # the run's own disk
        until(lambda: "the file system is read-only" in fleet.log("server"), "the server to say why", fleet.server)
        first = len(fleet.events("run", "round"))
        assert 3 <= first < 60
        assert whole(fleet.store / "run", first)
        assert run.wait(timeout=240) == 1
        assert "the file system is read-only. Make it writable" in fleet.log("run")
    until(lambda: len(fleet.events("run", "round")) >= first + 3, "three more rounds", fleet.server)
    said = len(refusals(fleet))
    with read_only(fleet.store, tmp_path / "second-view"):  # and that of the whole server
        until(lambda: len(refusals(fleet)) > said, "the server to say why", fleet.server)
        second = len(fleet.events("run", "round"))
        assert first + 3 <= second < 60
        assert whole(fleet.store / "run", second)
        until(lambda: "health probes will fail" in fleet.log("server"), "the next beat to fail", fleet.server)
        refused = fl("server", "--store", str(fleet.store / "other"))
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
        assert "the file system is read-only" in refused.stderr
    until(lambda: fleet.events("run", "finished"), "the end of the run", fleet.server)
    assert whole(fleet.store / "run", 60)
    assert stop(fleet.server) == 0


@pytest.mark.slow
def test_a_run_whose_directory_is_taken_away_ends_with_the_reason_and_is_resumed(start: Start, tmp_path: Path) -> None:
    if shutil.which("setpriv") is None:
        pytest.skip("permissions bind root only without its capabilities: install util-linux, which has setpriv")
    fleet = Fleet(start, tmp_path, under=LIMITED)
    fleet.client("client-0")
    run = fleet.running(*LONG, "--set", f"out={fleet.store}/run")
    until(lambda: len(fleet.events("run", "round")) >= 3, "three rounds", run)
    checkpoints = fleet.store / "run" / "checkpoints"
    checkpoints.chmod(0o555)
    assert run.wait(timeout=240) == 1
    assert "permission is denied. Give this user the right to write there" in fleet.log("run")
    committed = len(fleet.events("run", "round"))
    assert 3 <= committed < 60
    assert whole(fleet.store / "run", committed)
    checkpoints.chmod(0o700)
    again = fleet.run(*LONG, "--set", f"out={fleet.store}/run", "--set", "resume=true")
    assert again.returncode == 0, again.stderr
    assert whole(fleet.store / "run", 60)
    assert stop(fleet.server) == 0
