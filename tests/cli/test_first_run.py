import contextlib

import pytest

from fl_cli import first_run
from fl_common.errors import ParterreError
from fl_common.settings.schema import Settings
from fl_server.store.runs import Run
from fl_server.superlink.database import LinkDatabase


class Control(contextlib.AbstractContextManager):
    """Notes what is submitted, in place of a server."""

    def __init__(self):
        self.submitted = []

    def __exit__(self, *_):
        return None

    def submit(self, settings):
        self.submitted.append(settings)
        return 7


@pytest.mark.parametrize(("task", "name"), [("digits", "digits"), ("tests.support.small_task", "small_task")])
def test_the_first_run_has_the_settings_of_the_environment_and_a_directory_named_for_its_task(
    tmp_path, monkeypatch, task, name
):
    monkeypatch.setenv("FL_TASK", task)
    monkeypatch.setenv("FL_ROUNDS", "4")
    settings = first_run.settings_of(tmp_path)
    assert (settings.rounds, settings.out) == (4, str(tmp_path / name))


@pytest.mark.parametrize(("environment", "seconds"), [({}, 0.0), ({"FL_WAIT_SECONDS": "7"}, 7.0)])
def test_the_first_run_waits_for_its_clients_as_long_as_it_takes(tmp_path, monkeypatch, environment, seconds):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert first_run.settings_of(tmp_path).wait_seconds == seconds


def test_settings_that_cannot_be_run_are_refused_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("FL_TASK", "no_such_task")
    with pytest.raises(ParterreError, match="no_such_task"):
        first_run.settings_of(tmp_path)


def test_a_first_run_is_submitted_once(tmp_path):
    control, database = Control(), LinkDatabase(tmp_path / "state.db")
    settings = Settings(out=str(tmp_path / "digits"))
    assert first_run.submit_once(settings, tmp_path, database, lambda: control) == 7
    Run.create(tmp_path / "digits", settings)
    assert first_run.submit_once(settings, tmp_path, database, lambda: control) is None
    assert control.submitted == [settings]


def test_a_store_with_runs_is_served_though_the_settings_of_a_next_one_are_wrong(tmp_path, monkeypatch):
    said = []
    monkeypatch.setenv("FL_ROUND", "5")
    with pytest.raises(ParterreError, match="FL_ROUNDS"):
        first_run.wanted(tmp_path, said.append)
    Run.create(tmp_path / "digits", Settings(out=str(tmp_path / "digits")))
    assert first_run.wanted(tmp_path, said.append) is None
    assert "FL_ROUND is none" in said[0]
    assert said[0].endswith("The runs that are there are served all the same.")


def test_settings_that_differ_from_those_of_the_run_that_goes_on_are_named(tmp_path, monkeypatch):
    said = []
    monkeypatch.setenv("FL_ROUNDS", "4")
    first = first_run.wanted(tmp_path, said.append)
    Run.create(tmp_path / "digits", first)
    assert first_run.wanted(tmp_path, said.append) is None
    assert said == []
    monkeypatch.setenv("FL_ROUNDS", "500")
    assert first_run.wanted(tmp_path, said.append) is None
    assert said == [
        "run digits goes on with the settings that it began with; those of the environment differ: rounds=500 (4). "
        "Begin another run with `fl run`."
    ]
