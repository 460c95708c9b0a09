"""`fl runs`: every run is listed with how far it came, one is shown in full, and a name is found under the store."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from fl_cli import runs
from fl_cli.options import HOME
from fl_common.errors import ParterreError, StoreError
from fl_common.settings.schema import Settings
from fl_server.store.log import events_log
from fl_server.store.run_directories import RunDirectories
from fl_server.store.runs import Checkpoint, Run


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
    (tmp_path / "third" / "seal.json").unlink()
    return tmp_path


def invoke(app: typer.Typer, *arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_runs_are_listed_with_how_far_they_came(app: typer.Typer, store: Path) -> None:
    head, third, first, second, why, reason = invoke(app, "runs", "--store", str(store)).splitlines()
    assert head.split() == ["run", "status", "rounds", "loss", "accuracy", "began", "task", "strategy"]
    assert first.split()[:5] == ["first", "finished", "2/2", "0.5000", "0.9000"]
    assert first.split()[-2:] == ["digits", "fedadam"]
    assert second.split()[:5] == ["second", "failed", "0/10", "-", "-"]
    assert third.split()[:2] == ["third", "damaged"]
    assert why.startswith("third: damaged: ")
    assert reason == "second: failed: too few clients"


def test_runs_stand_in_the_order_of_their_time_and_fit_eighty_columns(app: typer.Typer, tmp_path: Path) -> None:
    for name, minute in (("20261126-175812-own_task-fedavg-1234567", 9), ("b", 7), ("c", 8)):
        run = Run.create(tmp_path / name, Settings())
        others = {f"branch_{number}_mean_absolute_error": 0.5 for number in range(9)}
        event = {"event": "round", "round": 1, "loss": 0.5, "metrics": {"mae": 0.25, **others}}
        run.append(event | {"time": f"2026-11-26T12:{minute:02d}:00+00:00"})
    lines = invoke(app, "runs", "--store", str(tmp_path)).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["b", "c", "20261126-175812-own_task-fedavg-1234567"]
    assert max(map(len, lines)) <= 80
    assert lines[0].split()[:5] == ["run", "status", "rounds", "loss", "mae"]
    assert lines[1].split()[:5] == ["b", "interrupted", "1/10", "0.5000", "0.2500"]
    assert "accuracy" not in lines[0]  # a regression has none


def test_a_run_that_a_server_knows_has_its_number(app: typer.Typer, store: Path) -> None:
    (store / HOME).mkdir()
    RunDirectories(store / HOME).note(4711, store / "first")
    rows = [json.loads(line) for line in invoke(app, "runs", "--store", str(store), "--json").splitlines()]
    assert {row["run"]: row["number"] for row in rows} == {"first": 4711, "second": None, "third": None}
    assert "number" in invoke(app, "runs", "--store", str(store)).splitlines()[0]
    assert "number:       4711" in invoke(app, "runs", "show", "first", "--store", str(store))


def test_a_long_log_is_listed_from_its_two_ends(app: typer.Typer, tmp_path: Path, monkeypatch: Any) -> None:
    run = Run.create(tmp_path / "long", Settings())
    run.append({"event": "started", "run": "long"})
    line = json.dumps({"event": "round", "round": 1, "loss": 0.5, "note": "x" * 1000}).encode() + b"\n"
    with (tmp_path / "long" / "events.jsonl").open("ab") as file:
        file.write(line * 5000)
    run.append({"event": "finished", "rounds": 1})
    monkeypatch.setattr(Run, "damage", "")
    parsed = []
    parse = events_log.parse
    monkeypatch.setattr(events_log, "parse", lambda line: (parsed.append(len(line)), parse(line))[1])
    assert "finished" in invoke(app, "runs", "--store", str(tmp_path))
    assert sum(parsed) < 500_000  # of 5 MB


def test_a_line_longer_than_any_event_is_never_printed(app: typer.Typer, store: Path) -> None:
    with (store / "first" / "events.jsonl").open("ab") as file:
        file.write(b'{"event": "failed", "error": "' + b"x" * (9 << 20) + b'"}\n')
    Run(store / "first").append({"event": "warning", "text": "after it"})
    for arguments in ([], ["--json"]):
        shown = invoke(app, "runs", "show", "first", "--store", str(store), *arguments)
        assert "after it" in shown
        assert len(shown) < 100_000


def test_runs_are_listed_for_a_program(app: typer.Typer, store: Path) -> None:
    rows = [json.loads(line) for line in invoke(app, "runs", "--store", str(store), "--json").splitlines()]
    assert [row["status"] for row in rows] == ["damaged", "finished", "failed"]
    assert (rows[1]["round"], rows[1]["loss"], rows[1]["run_dir"]) == (2, 0.5, str(store / "first"))
    assert "settings.toml" in rows[0]["error"]


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


def test_a_run_that_waits_says_for_what(app: typer.Typer, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "early", Settings())
    run.append({"event": "waiting", "have": 0, "need": 2, "seconds": 1.0})
    with run.lock():
        assert (
            invoke(app, "runs", "--store", str(tmp_path)).splitlines()[-1]
            == "early: waiting for 2 clients; 0 are there"
        )
    assert "waiting" not in invoke(app, "runs", "--store", str(tmp_path))  # nobody waits in its name any more


def test_a_run_that_goes_on_without_some_partitions_says_so(app: typer.Typer, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "half", Settings())
    run.append({"event": "round", "round": 1, "unused": 2, "partitions": 4})
    with run.lock():
        last = invoke(app, "runs", "--store", str(tmp_path)).splitlines()[-1]
    assert last == "half: 2 of 4 partitions unused (no client holds them)"


def _log(text: bytes) -> Callable[[Path], object]:
    def damage(run: Path) -> None:
        with (run / "events.jsonl").open("ab") as file:
            file.write(text + b"\n")

    return damage


DAMAGED: dict[str, Callable[[Path], object]] = {
    "a round without its number": _log(b'{"event": "round", "time": "2026-01-01"}'),
    "a round that is a text": _log(b'{"event": "round", "round": "1"}'),
    "brackets": _log(b"[" * 100_000),
    "binary": lambda run: (run / "events.jsonl").write_bytes(bytes(range(256)) * 99),
    "a directory for a log": lambda run: ((run / "events.jsonl").unlink(), (run / "events.jsonl").mkdir()),
    "a pipe for a log": lambda run: ((run / "events.jsonl").unlink(), os.mkfifo(run / "events.jsonl")),
    "a pipe for the settings": lambda run: ((run / "settings.toml").unlink(), os.mkfifo(run / "settings.toml")),
    "a pipe for the seal": lambda run: ((run / "seal.json").unlink(), os.mkfifo(run / "seal.json")),
    "a pipe for a manifest": lambda run: (
        (run / "checkpoints" / "0002" / "manifest.json").unlink(),
        os.mkfifo(run / "checkpoints" / "0002" / "manifest.json"),
    ),
    "no log": lambda run: (run / "events.jsonl").unlink(),
    "nested settings": lambda run: (run / "settings.toml").write_text("x = " + "[" * 100_000),
    "binary settings": lambda run: (run / "settings.toml").write_bytes(bytes(range(256))),
    "no settings": lambda run: (run / "settings.toml").unlink(),
    "no settings and no seal": lambda run: [(run / name).write_text("") for name in ("settings.toml", "seal.json")],
    "a nested seal": lambda run: (run / "seal.json").write_text("[" * 100_000),
    "a nested manifest": lambda run: (run / "checkpoints" / "0002" / "manifest.json").write_text("[" * 100_000),
    "no manifest": lambda run: (run / "checkpoints" / "0002" / "manifest.json").unlink(),
    "a file for the checkpoints": lambda run: (
        shutil.rmtree(run / "checkpoints"),
        (run / "checkpoints").write_text("x"),
        (run / "events.jsonl").write_text("["),
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_one_damaged_run_hides_no_other_and_says_why(app: typer.Typer, store: Path, damage: str) -> None:
    shutil.rmtree(store / "third")
    DAMAGED[damage](store / "first")
    result = CliRunner().invoke(app, ["runs", "--store", str(store)], catch_exceptions=False)
    lines = result.stdout.splitlines()
    assert sorted(line.split()[:2] for line in lines[1:3]) == [["first", "damaged"], ["second", "failed"]]
    assert len(lines) == 5
    assert len(next(line for line in lines if line.startswith("first: damaged: "))) < 400
    rows = [json.loads(line) for line in invoke(app, "runs", "--store", str(store), "--json").splitlines()]
    assert {row["run"]: row["status"] for row in rows} == {"first": "damaged", "second": "failed"}
    shown = CliRunner().invoke(app, ["runs", "show", "first", "--store", str(store)])
    assert "damaged" in shown.output + str(shown.exception)
    assert shown.exception is None or isinstance(shown.exception, ParterreError)


@pytest.mark.parametrize("event", [{"event": "failed"}, {"event": "finished"}, {"event": "rejected", "reason": 5}])
def test_an_event_that_lacks_what_its_kind_has_is_shown_as_damaged(
    app: typer.Typer, store: Path, event: dict[str, Any]
) -> None:
    Run(store / "second").append(event)
    assert "this event is damaged" in invoke(app, "runs", "show", "second", "--store", str(store))
    assert "second" in invoke(app, "runs", "--store", str(store))
