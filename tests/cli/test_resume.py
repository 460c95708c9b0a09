"""`fl resume`: what it says and asks before anything starts."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from fl_cli import resume, simulate, trust, up
from fl_common.errors import ParterreError, StoreError
from fl_common.settings.schema import Settings
from fl_server.store.runs import Checkpoint, Run


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Run, Settings]]:
    """What would be started, by which command: nothing is."""
    calls: list[tuple[str, Run, Settings]] = []

    def begin(run: Run, settings: Settings, **more: object) -> dict[str, object]:
        calls.append(("up", run, settings))
        return {"event": "finished"}

    def simulated(settings: Settings, *, run: Run, **more: object) -> dict[str, object]:
        calls.append(("simulate", run, settings))
        return {"event": "finished"}

    monkeypatch.setattr(up, "start", begin)
    monkeypatch.setattr(simulate, "start", simulated)
    return calls


def made(directory: Path, *, last: str = "", simulated: bool = False, **settings: object) -> Run:
    run = Run.create(directory, Settings.model_validate({"rounds": 2} | settings), simulated=simulated)
    notes = {"partitions": 3, "since_best": 0, "result": {}}
    for number in (1, 2):
        run.commit(Checkpoint(number, {"w": np.ones(2)}, notes=notes), {"event": "round", "round": number})
    if last:
        run.append({"event": last, "rounds": 2, "error": "x"})
    return run


def resumed(run: Run, *more: str) -> Result:
    app = typer.Typer()
    resume.register(app)
    return CliRunner().invoke(app, [str(run.directory), *more])


def said(result: Result) -> str:
    assert isinstance(result.exception, ParterreError), result.output
    return str(result.exception)


def test_a_finished_run_says_so_at_once(tmp_path: Path, started: list) -> None:
    run = made(tmp_path / "run", last="finished")
    for more in ([], ["--rounds", "2"], ["--rounds", "1"], ["--set", "keep=4"]):
        result = resumed(run, *more)
        assert (result.exit_code, started) == (0, [])
        assert "run run is finished, after 2 rounds" in result.stdout
        assert "--rounds 12" in result.stdout
    assert resumed(run, "--json").stdout == ""
    resumed(run, "--rounds", "3")
    assert [settings.rounds for _, _, settings in started] == [3]


def test_what_a_run_has_lost_is_put_back_and_said(tmp_path: Path, started: list) -> None:
    run = made(tmp_path / "run", last="failed", tau=1e-4)
    (run.directory / "settings.toml").write_text("")
    result = resumed(run)
    assert "settings.toml is damaged" in result.stderr
    assert "put back" in result.stderr
    assert started[0][2].tau == 1e-4
    assert resumed(run).stderr == ""


@pytest.mark.parametrize("lost", ["events.jsonl", "seal.json", "settings.toml", "checkpoints/0002/manifest.json"])
def test_a_simulation_is_resumed_as_one_whatever_file_was_lost(tmp_path: Path, started: list, lost: str) -> None:
    run = made(tmp_path / "run", simulated=True)
    (run.directory / lost).unlink()
    assert resumed(run).exit_code == 0
    assert [command for command, _, _ in started] == ["simulate"]


def test_a_run_of_somebody_else_is_not_gone_on_with_without_trust(
    tmp_path: Path, started: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = tmp_path / "task.py"
    task.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    run = made(tmp_path / "run", task=str(task))
    monkeypatch.setenv("FL_RUN_KEY", str(tmp_path / "another.key"))
    before = sorted(run.directory.rglob("*"))
    text = said(resumed(run))
    assert all(part in text for part in ("not made by this user", f"the task {task}", "--trust", "another.key"))
    assert (started, sorted(run.directory.rglob("*"))) == ([], before)
    assert resumed(run, "--trust").exit_code == 0
    assert resumed(run).exit_code == 0  # it is this user's now
    assert len(started) == 2


@pytest.mark.parametrize(
    "settings", [{"strategy": "flwr.serverapp.strategy:FedAvg"}, {"initial": "w.keras", "initial_trusted": True}]
)
def test_all_that_would_be_run_or_opened_asks_for_trust(
    tmp_path: Path, started: list, monkeypatch: pytest.MonkeyPatch, settings: dict
) -> None:
    run = made(tmp_path / "run", **settings)
    monkeypatch.setenv("FL_RUN_KEY", str(tmp_path / "another.key"))
    assert next(iter(settings.values())) in said(resumed(run))


def test_what_is_ours_is_gone_on_with_whoever_made_the_run(
    tmp_path: Path, started: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made(tmp_path / "run")
    monkeypatch.setenv("FL_RUN_KEY", str(tmp_path / "another.key"))
    assert resumed(run).exit_code == 0
    (run.directory / "logs").symlink_to(tmp_path)
    assert "the link" in said(resumed(run))


def test_a_task_that_was_changed_in_the_run_asks_for_trust(tmp_path: Path, started: list) -> None:
    run = Run.create(tmp_path / "run", Settings(task=str(tmp_path / "run" / "task" / "mine.py")))
    (run.directory / "task").mkdir()
    (run.directory / "task" / "mine.py").write_text("x = 1")
    run.files.keep_task()
    assert resumed(run).exit_code == 0
    (run.directory / "task" / "numpy.py").write_text("x = 1")
    assert "task/numpy.py of run run is not what it was" in said(resumed(run))
    assert resumed(run, "--trust").exit_code == 0
    assert resumed(run).exit_code == 0


def test_a_run_can_be_trusted_without_going_on_with_it(
    tmp_path: Path, started: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made(tmp_path / "run", task="my_pkg.task")
    (run.directory / "settings.toml").write_text("")
    monkeypatch.setenv("FL_RUN_KEY", str(tmp_path / "another.key"))
    app = typer.Typer()
    trust.register(app)
    result = CliRunner().invoke(app, [str(run.directory)])
    assert "is yours now. It uses the task my_pkg.task." in result.stdout
    assert resumed(run).exit_code == 0
    assert started[0][2].task == "my_pkg.task"


def test_a_seal_cannot_have_files_written_elsewhere(tmp_path: Path, started: list) -> None:
    run = made(tmp_path / "run")
    content = json.loads((run.directory / "seal.json").read_text())
    content["seal"]["texts"]["../escaped"] = "x"
    body = json.dumps(content["seal"], sort_keys=True).encode()
    import hashlib

    content["sha256"] = hashlib.sha256(body).hexdigest()
    (run.directory / "seal.json").write_text(json.dumps(content))
    assert resumed(run).exit_code == 0
    assert not (tmp_path / "escaped").exists()


def test_a_run_that_nothing_says_the_settings_of_is_refused(tmp_path: Path, started: list) -> None:
    run = Run.create(tmp_path / "run", Settings())
    (run.directory / "seal.json").unlink()
    (run.directory / "settings.toml").write_text("")
    result = resumed(run)
    assert isinstance(result.exception, StoreError)
    assert started == []


def test_a_run_of_whose_files_nothing_is_known_asks_before_it_goes_on(tmp_path: Path, started: list) -> None:
    run = Run.create(tmp_path / "run", Settings(rounds=5))
    run.files.keep("data.json", '{"paths": [], "label": "", "ignore": []}')
    for name in ("seal.json", "data.json"):
        (run.directory / name).unlink()
    assert "says what its files were" in said(resumed(run))
    assert started == []
    assert resumed(run, "--trust").exit_code == 0
    assert started[0][2].rounds == 5
