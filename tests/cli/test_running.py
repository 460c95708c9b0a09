"""`fl stop`, `fl follow` and `fl logs` find a run by its directory, its name or its number, and who runs it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fl_cli import run as command
from fl_cli.main import register
from fl_cli.running import Runner, named, number_of, runner
from fl_cli.server import LOCK as SERVER_LOCK
from fl_common.errors import StoreError
from fl_common.settings.schema import Settings
from fl_server.store.disk.server_lock import alone
from fl_server.store.run_directories import RunDirectories
from fl_server.store.runs import LOCK, Run
from fl_server.superlink.execution.control import Status
from parterre.federation import HOME, OWNER

WRITER = """
import sys, time
from pathlib import Path
from fl_server.store.runs import Run
from parterre.federation import Stopped, stopping_on_signals
run = Run.open(Path(sys.argv[1]))
with stopping_on_signals(), run.lock():
    try:
        print("locked", flush=True)
        time.sleep(60)
    except Stopped:
        run.append({"event": "stopped"})
"""


@pytest.fixture
def made(tmp_path: Path) -> Run:
    run = Run.create(tmp_path / "store" / "demo", Settings())
    run.append({"event": "started", "run": "demo", "rounds": 1})
    return run


@pytest.fixture
def writer(made: Run) -> Iterator["subprocess.Popen[str]"]:
    """A process that writes the run, as a simulation does."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(made.directory)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def fl(*arguments: str):
    return CliRunner().invoke(register((arguments[0],)), arguments, catch_exceptions=False)


def test_a_run_is_named_by_directory_name_or_number(made: Run, tmp_path: Path) -> None:
    found = [named(str(made.directory), tmp_path), named("demo", tmp_path / "store")]
    assert [each.directory for each in found if isinstance(each, Run)] == [made.directory] * 2
    assert named("4711", tmp_path / "store") == 4711
    with pytest.raises(StoreError, match="there is no run other"):
        named("other", tmp_path / "store")


def test_who_runs_a_run_is_told_by_the_locks_that_are_held(made: Run) -> None:
    assert not runner(made)
    (made.directory / HOME).mkdir()
    with made.lock(), alone(made.directory / HOME / OWNER, "the run"):
        assert runner(made).process is not None
        assert number_of(made) is None
    (made.directory / LOCK).write_text("1")  # of a process that is gone
    assert not runner(made)


def test_a_run_of_a_server_has_the_number_that_the_server_gave_it(made: Run, tmp_path: Path) -> None:
    home = tmp_path / "store" / ".superlink"
    home.mkdir()
    RunDirectories(home).note(4711, made.directory)
    assert number_of(made) == 4711
    with made.lock():
        assert runner(made) == Runner(4711)
    assert not runner(made)


def test_a_run_is_stopped_by_its_name_and_keeps_what_it_has(made: Run, writer: "subprocess.Popen[str]") -> None:
    done = fl("stop", "demo", "--store", str(made.directory.parent))
    assert done.exit_code == 0
    assert f"stopped; go on with: fl resume {made.directory}" in done.output
    assert writer.wait(timeout=300) == 0
    assert made.status == "interrupted"
    with pytest.raises(StoreError, match="run demo does not run: it is interrupted"):
        fl("stop", str(made.directory))


class Answering:
    """A Control that knows the run's number, and takes note of what it is told to stop."""

    def __init__(self, state: str) -> None:
        self.state = state
        self.stopped: list[int] = []

    def __enter__(self) -> "Answering":
        return self

    def __exit__(self, *_: object) -> None: ...

    def status(self, _: int) -> Status:
        return Status(self.state, "", "")

    def stop(self, number: int) -> None:
        self.stopped.append(number)


def test_a_run_between_two_starts_is_stopped_by_its_server(made: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    home, control = made.directory.parent / ".superlink", Answering("pending")
    home.mkdir()
    RunDirectories(home).note(4711, made.directory)
    monkeypatch.setattr(command, "reach", lambda *_, **__: control)
    command_line = ("stop", "demo", "--store", str(made.directory.parent))
    with pytest.raises(StoreError, match="run demo does not run: it is interrupted"):
        fl(*command_line)  # no server has the store
    with alone(home / SERVER_LOCK, "the store"):
        assert fl(*command_line).output == "stopped; go on with: fl run --resume demo\n"  # by the server that had it
        assert control.stopped == [4711]
        control.state = "finished"
        with pytest.raises(StoreError, match="run demo does not run: it is interrupted"):
            fl(*command_line)
        made.append({"event": "finished", "rounds": 1, "loss": 0.5})
        control.state = "running"  # its server has not looked yet
        with pytest.raises(StoreError, match="run demo does not run: it is finished"):
            fl(*command_line)
    assert control.stopped == [4711]


def test_a_run_is_followed_from_its_beginning_to_its_end(made: Run) -> None:
    made.append({"event": "round", "round": 1, "loss": 0.5, "replies": 2, "cohort": 2})
    made.append({"event": "finished", "rounds": 1, "loss": 0.5, "gaps": 1})
    done = fl("follow", str(made.directory))
    assert done.exit_code == 3  # it has gaps
    assert "round 1/1: loss 0.5000" in done.output
    assert fl("follow", str(made.directory), "--allow-partial", "--json").exit_code == 0


def test_logs_are_printed_of_a_run_of_a_client_and_of_the_newest_run_that_has_the_client(made: Run) -> None:
    logs = made.directory / "logs"
    logs.mkdir()
    (logs / "client-1.log").write_text("one\ntwo \x1b[31mred\n")
    (logs / "superlink.log").write_text("up\n")
    store = ("--store", str(made.directory.parent))
    assert fl("logs", "demo", *store).output.splitlines() == [
        "client-1  one", "client-1  two \\x1b[31mred", "superlink  up",
    ]  # fmt: skip
    for name in ("client-1", "demo/client-1", f"{made.directory}/client-1"):
        assert fl("logs", name, "--lines", "1", *store).output == "two \\x1b[31mred\n"
    with pytest.raises(StoreError, match="there is no run client-7"):
        fl("logs", "client-7", *store)
