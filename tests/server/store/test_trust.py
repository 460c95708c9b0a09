"""Whose run it is, where a server opens it: its own runs go on without a question, somebody else's code is not run."""

from pathlib import Path

import pytest

from fl_common.errors import StoreError
from fl_common.settings.schema import Settings
from fl_server import app
from fl_server.store.run_directories import HOME_VARIABLE, RunDirectories
from fl_server.store.runs import Run
from fl_server.store.seals import trust


def foreign(directory: Path, monkeypatch: pytest.MonkeyPatch, **settings: object) -> Run:
    """A run with a task of its own, made under another key than the one that is here now."""
    task = {"task": str(directory / "task" / "mine.py")}
    Run.create(directory, Settings.model_validate(task | settings))
    monkeypatch.setenv("FL_RUN_KEY", str(directory.parent / "another.key"))
    return Run.open(directory)


def test_a_server_goes_on_with_what_it_began_without_a_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = foreign(tmp_path / "run", monkeypatch)
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    RunDirectories(tmp_path / "home").note(7, run.directory)
    found = app.continued(7)
    assert found is not None
    assert found.directory == run.directory.resolve()


def test_a_server_is_not_had_to_run_the_code_of_a_run_that_was_put_into_its_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = foreign(tmp_path / "run", monkeypatch)
    settings = run.settings.model_copy(update={"resume": True, "out": str(run.directory)})
    with pytest.raises(StoreError, match=r"run run was not made by this user.*mine\.py.*fl trust"):
        app.open_run(settings)
    assert [each.name for each in run.directory.iterdir()].count("events.jsonl") == 0
    monkeypatch.setenv(trust.VARIABLE, str(run.directory.resolve()))  # as a command does that has asked
    assert app.open_run(settings).directory == run.directory


def test_a_store_in_a_container_has_its_key_in_the_home_of_its_server() -> None:
    text = (Path(__file__).parents[3] / "deploy" / "docker" / "Dockerfile").read_text()
    assert "FL_STORE=/store FL_RUN_KEY=/store/.superlink/run.key" in text
