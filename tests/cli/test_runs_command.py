"""`fl runs`: every run is listed with how far it came, one is shown in full, and a name is found under the store."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from fl_cli import runs
from fl_common.errors import StoreError
from fl_common.settings import Settings
from fl_server.runs import Checkpoint, Run


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    runs.register(app)
    app.command("other")(lambda: None)
    return app


@pytest.fixture
def store(tmp_path: Path) -> Path:
    finished = Run.create(tmp_path / "first", Settings(rounds=2, strategy="fedadam"))
    finished.append({"event": "started", "run": "first", "task": "digits", "strategy": "fedadam", "rounds": 2})
    for number in (1, 2):
        event = {"event": "round", "round": number, "loss": 1 / number, "accuracy": 0.9, "cohort": 2, "replies": 2}
        finished.commit(Checkpoint(number, {"w": np.ones(2)}), event)
    finished.append(
        {"event": "finished", "rounds": 2, "accuracy": 0.9, "loss": 0.5, "run_dir": str(finished.directory)}
    )
    Run.create(tmp_path / "second", Settings()).append({"event": "failed", "error": "too few clients", "round": 1})
    Run.create(tmp_path / "third", Settings())
    (tmp_path / "third" / "settings.toml").write_text("broken = = 1")
    return tmp_path


def invoke(app: typer.Typer, *arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_runs_are_listed_with_how_far_they_came(app: typer.Typer, store: Path) -> None:
    head, first, second, third = invoke(app, "runs", "--store", str(store)).splitlines()
    assert head.split()[:2] == ["run", "status"]
    assert first.split()[:7] == ["first", "finished", "digits", "fedadam", "2/2", "0.9000", "0.5000"]
    assert second.split()[:5] == ["second", "failed", "digits", "fedavg", "0/10"]
    assert third.split()[:2] == ["third", "unreadable"]


def test_runs_are_listed_for_a_program(app: typer.Typer, store: Path) -> None:
    rows = [json.loads(line) for line in invoke(app, "runs", "--store", str(store), "--json").splitlines()]
    assert [row["status"] for row in rows] == ["finished", "failed", "unreadable"]
    assert (rows[0]["round"], rows[0]["loss"], rows[0]["run_dir"]) == (2, 0.5, str(store / "first"))
    assert "settings.toml" in rows[2]["error"]


def test_the_store_is_named_by_the_environment_too(app: typer.Typer, store: Path) -> None:
    result = CliRunner().invoke(app, ["runs"], env={"FL_STORE": str(store)})
    assert "first" in result.stdout


def test_an_empty_store_says_how_to_begin(app: typer.Typer, tmp_path: Path) -> None:
    assert "fl up" in invoke(app, "runs", "--store", str(tmp_path / "none"))


def test_a_run_is_shown_with_its_settings_rounds_and_what_it_left(app: typer.Typer, store: Path) -> None:
    text = invoke(app, "runs", "show", "first", "--store", str(store))
    for expected in (
        "first  finished",
        "strategy:",
        "fedadam",
        "checkpoints:  1, 2",
        "round 2: loss 0.5000",
        "fl plot",
    ):
        assert expected in text
    assert "fl resume" not in text


def test_a_run_is_shown_for_a_program_as_its_events(app: typer.Typer, store: Path) -> None:
    lines = invoke(app, "runs", "show", str(store / "first"), "--json").splitlines()
    assert [json.loads(line) for line in lines] == Run(store / "first").events()


def test_a_failed_run_is_shown_with_why_and_what_to_do(app: typer.Typer, store: Path) -> None:
    text = invoke(app, "runs", "show", "second", "--store", str(store))
    assert "failed in round 1: too few clients" in text
    assert f"fl resume {store / 'second'}" in text


def test_a_run_is_found_by_path_or_name_and_else_the_known_ones_are_named(store: Path) -> None:
    assert runs.find(str(store / "first"), Path("nowhere")).name == runs.find("first", store).name == "first"
    with pytest.raises(StoreError, match=r"no run fist.*Runs there: first, second, third"):
        runs.find("fist", store)
    with pytest.raises(StoreError, match="--store"):
        runs.find("fist", store / "none")


def test_looking_at_runs_imports_no_tensorflow() -> None:
    code = (
        "import sys, fl_cli.runs, fl_cli.plot, fl_cli.export, fl_cli.display; "
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras', 'matplotlib', 'flwr')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
