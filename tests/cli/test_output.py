"""Output that nobody takes: the showing ends, the work goes on; where the output was the work, that is an error."""

import subprocess
import sys
from pathlib import Path

import pytest

import fl_common
from fl_server.store.runs import Run
from tests.integration.conftest import environment, events

ROOT = str(Path(fl_common.__file__).parent.parent)
LIST = "from fl_cli.main import main; main()"
WORK = (
    "from fl_cli.output import outlasting\nwith outlasting('up'):\n    print('é' * 99_999)\nopen('done', 'w').close()"
)
SIMULATE = ("simulate", "--clients", "2", "--rounds", "2", "--set", "plot=false", "--set", "tensorboard=false")


def shell(end: str, code: str, *arguments: str, directory: Path) -> "subprocess.CompletedProcess[str]":
    """Run Python under a shell that ends the command with a redirection or a pipe."""
    return subprocess.run(
        ["/bin/bash", "-c", f'"$0" "$@" {end}', sys.executable, "-c", code, *arguments],
        cwd=directory, env=environment(PYTHONPATH=ROOT), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("end", ["> /dev/full", ">&-", ">&- 2>&- <&-", "| true; exit ${PIPESTATUS[0]}"])
def test_work_goes_on_and_ends_well_whatever_becomes_of_its_output(tmp_path: Path, end: str) -> None:
    done = shell(end, WORK, directory=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "done").exists()
    assert "Traceback" not in done.stderr


def test_a_list_that_could_not_be_written_is_an_error_and_one_that_nobody_reads_is_none(tmp_path: Path) -> None:
    full = shell("> /dev/full", LIST, "--version", directory=tmp_path)
    assert full.returncode == 1
    assert full.stderr.strip() == "standard output could not be written: No space left on device."
    unread = shell("| true; exit ${PIPESTATUS[0]}", LIST, "--version", directory=tmp_path)
    assert (unread.returncode, unread.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("end", ["> /dev/full", "| head -1; exit ${PIPESTATUS[0]}"])
def test_a_simulation_outlives_its_output_and_its_clients_do_not_pay_for_it(tmp_path: Path, end: str) -> None:
    done = shell(end, LIST, *SIMULATE, "--out", "run", directory=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Run.open(tmp_path / "run").status == "finished"
    assert events(tmp_path / "run", "rejected") == []
    assert [event["engine"] for event in events(tmp_path / "run", "engine")] == ["vectorized"]
