"""`fl compare`: runs in one table of 80 columns and one plot; what cannot be compared says why in a sentence."""

import json
from pathlib import Path
from typing import Any

import matplotlib.figure
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from fl_cli import compare, runs
from fl_common.errors import ParterreError, SettingsError, StoreError
from fl_common.settings.schema import Settings
from fl_server.store.runs import Run


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    compare.register(app)
    runs.register(app)
    return app


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: Any) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(name: str, rounds: list[dict[str, Any]], /, **settings: Any) -> Run:
    run = Run.create(Path("runs") / name, Settings(**settings))
    for number, event in enumerate(rounds, 1):
        costs = {"seconds": 1.5, "bytes_up": 1000, "bytes_down": 3000}
        run.append({"event": "round", "round": number, **costs, **event})
    return run


def invoke(app: typer.Typer, *arguments: str) -> str:
    result = CliRunner().invoke(app, ["compare", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def table(text: str) -> dict[str, list[str]]:
    return {line[:14].strip(): line[14:].split() for line in text.splitlines()}


def test_runs_stand_side_by_side_with_what_differs(app: typer.Typer) -> None:
    made("a", [{"loss": 0.5, "accuracy": 0.7}, {"loss": 0.25, "accuracy": 0.9}, {"loss": 0.75, "accuracy": 0.8}])
    fleet = {"fleet": {"seconds": 9.0, "clock": 90.0}}
    made("b", [{"loss": 2.0, "accuracy": 0.6} | fleet], strategy="fedadam", local_epochs=4, rounds=7, seed=0)
    rows = table(invoke(app, "a", "b"))
    assert rows == {
        "run": ["a", "b"],
        "status": ["interrupted", "interrupted"],
        "task": ["digits", "digits"],
        "strategy": ["fedavg", "fedadam"],
        "rounds": ["3/10", "1/7"],
        "local_epochs": ["1", "4"],
        "loss": ["0.7500", "2.0000"],
        "best (round)": ["0.9000", "(2)", "0.6000", "(1)"],
        "accuracy": ["0.8000", "0.6000"],
        "bytes up": ["3.0", "kB", "1.0", "kB"],
        "bytes down": ["9.0", "kB", "3.0", "kB"],
        "time": ["4.50", "s", "1.50", "s"],
        "fleet time": ["-", "1", "min", "30", "s"],
        "plot: compare.": ["png"],
    }
    with Image.open("compare.png") as picture:
        assert picture.format == "PNG"


def test_a_program_gets_one_object_and_nothing_else(app: typer.Typer) -> None:
    made("a", [{"loss": 0.5, "metrics": {"auc": 0.6}}, {"loss": 0.25, "metrics": {"auc": 0.9}}, {"loss": 0.75}])
    made("b", [{"loss": 2.0, "metrics": {"auc": 0.7}}], mu=0.5)
    found = json.loads(invoke(app, "a", "b", "--json", "--out", "p.svg"))
    assert found["plot"] == "p.svg"
    a, b = found["runs"]
    assert a["metrics"] == {
        "loss": {"last": 0.75, "best": 0.25, "best_round": 2},
        "auc": {"last": 0.9, "best": 0.9, "best_round": 2},
    }
    assert (a["settings"], b["settings"]) == ({"mu": 0.0}, {"mu": 0.5})
    assert (a["round"], a["rounds"], a["bytes_up"], a["seconds"]) == (3, 10, 3000, 4.5)
    assert Path("p.svg").read_bytes().startswith(b"<?xml")


def test_which_is_better_is_said_by_a_setting_or_not_at_all(app: typer.Typer) -> None:
    rounds = [{"loss": 1.0, "metrics": {"gini": 0.9, "odd": 1.0}}, {"loss": 1.0, "metrics": {"gini": 0.1, "odd": 2.0}}]
    made("up", rounds, metric="gini:max")
    made("down", rounds, metric="gini:min")
    up, down = (run["metrics"] for run in json.loads(invoke(app, "up", "down", "--json"))["runs"])
    assert (up["gini"]["best_round"], down["gini"]["best_round"]) == (1, 2)
    assert up["odd"] == {"last": 2.0}


@pytest.mark.parametrize("number", [2, 3, 9])
def test_however_many_runs_fit_eighty_columns(app: typer.Typer, number: int) -> None:
    names = [f"20261126-17581{each}-own_task-fedavg-1234567-and-more" for each in range(number)]
    for each, name in enumerate(names):
        metrics = {"branch_1_of_two_mean_absolute_error": 0.5}
        made(name, [{"loss": 1.0, "metrics": metrics}], strategy_args=json.dumps({"text": "x" * 90 + str(each)}))
    text = invoke(app, *names)
    assert max(map(len, text.splitlines())) <= 80
    assert "".join(text.split()).count('"}') == number  # the long setting is whole


def test_metrics_that_only_some_have_and_other_data_are_named(app: typer.Typer) -> None:
    made("a", [{"loss": 1.0, "accuracy": 0.5, "evaluated_on": "test"}])
    made("b", [{"loss": 1.0, "metrics": {"mae": 0.5}, "evaluated_on": "clients"}])
    text = invoke(app, "a", "b")
    assert "not compared: accuracy (only a), mae (only b)" in text
    assert "evaluated on    test         clients" in text


def test_two_runs_of_one_name_are_told_apart_by_their_directories(app: typer.Typer) -> None:
    made("a", [{"loss": 1.0}])
    made("../other/a", [{"loss": 1.0}])
    assert invoke(app, "a", "other/a").splitlines()[0].split() == ["run", "runs/a", "other/a"]


def test_a_damaged_run_is_compared_as_such_while_it_can_be_read(app: typer.Typer) -> None:
    made("a", [{"loss": 1.0}])
    damaged = made("b", [{"loss": 1.0}])
    (damaged.directory / "settings.toml").unlink()
    text = invoke(app, "a", "b")
    assert table(text)["status"] == ["interrupted", "damaged"]
    assert "b: damaged: " in text


@pytest.mark.parametrize(
    ("names", "error", "text"),
    [
        (["a"], SettingsError, "takes from 2 to 24 runs; got 1. One run is shown by `fl plot a`"),
        (["a"] * 25, SettingsError, "got 25. Name fewer."),
        (["a", "runs/a"], SettingsError, "run a is named more than once"),
        (["a", "none"], StoreError, "there is no run none"),
        (["a", "empty"], StoreError, "run empty cannot be compared: no round of it was completed"),
        (["a", "odd"], StoreError, "run odd cannot be compared: its events hold what no run writes"),
        (["a", "mute"], StoreError, r"share no metric \(a has loss; mute has none\)"),
    ],
)
def test_what_cannot_be_compared_says_why(
    app: typer.Typer, names: list[str], error: type[ParterreError], text: str
) -> None:
    made("a", [{"loss": 1.0}])
    made("empty", [])
    made("odd", [{"loss": 1.0, "bytes_up": "many"}])
    made("mute", [{}])
    with pytest.raises(error, match=text):
        CliRunner().invoke(app, ["compare", *names], catch_exceptions=False)
    assert not Path("compare.png").exists()


def test_another_format_is_refused(app: typer.Typer) -> None:
    assert CliRunner().invoke(app, ["compare", "a", "b", "--out", "p.gif"]).exit_code == 2


def test_every_run_has_a_colour_and_stands_in_the_legend(app: typer.Typer, monkeypatch: Any) -> None:
    figures = []
    save = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure,
        "savefig",
        lambda self, *args, **more: (figures.append(self), save(self, *args, **more)),
    )
    names = ["plain", "_first", "two $\\frac{1}$ dollars", *(f"run{number}" for number in range(9))]
    for name in names:
        made(name, [{"loss": 1.0, "accuracy": 0.5, "metrics": {"a$_": 1.0}}, {"loss": 0.5, "metrics": {"a$_": 2.0}}])
    invoke(app, *names)
    (figure,) = figures
    assert [text.get_text() for text in figure.legends[0].get_texts()] == names
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Loss", "Accuracy", "a$_"]
    looks = [(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines if line.get_marker() == "None"]
    assert len(set(looks)) == len(looks) == len(names)
    assert all(axes.get_legend() is None for axes in figure.axes)  # off the curves
