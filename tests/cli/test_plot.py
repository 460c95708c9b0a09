"""`fl plot`: a run with a round is drawn where it was asked for, and what cannot be drawn says why."""

from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from fl_cli import plot, runs
from fl_common.errors import StoreError
from fl_common.settings import Settings
from fl_server.runs import Run


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    plot.register(app)
    runs.register(app)
    return app


def made(store: Path, rounds: int) -> Run:
    run = Run.create(store / "run", Settings())
    for number in range(1, rounds + 1):
        run.append({"event": "round", "round": number, "loss": 1 / number, "accuracy": 0.5, "seconds": 0.1})
    return run


def test_a_run_that_is_not_finished_is_drawn_into_its_directory(app: typer.Typer, tmp_path: Path) -> None:
    run = made(tmp_path, 3)
    result = CliRunner().invoke(app, ["plot", "run", "--store", str(tmp_path)], catch_exceptions=False)
    assert result.stdout.strip() == str(run.directory / "plot.png")
    with Image.open(run.directory / "plot.png") as picture:
        assert picture.format == "PNG"


def test_a_run_is_drawn_where_asked(app: typer.Typer, tmp_path: Path) -> None:
    run = made(tmp_path, 1)
    CliRunner().invoke(app, ["plot", str(run.directory), "--out", str(tmp_path / "p.png")], catch_exceptions=False)
    assert (tmp_path / "p.png").is_file()
    assert not (run.directory / "plot.png").exists()


def test_a_run_without_a_round_and_another_format_are_refused(app: typer.Typer, tmp_path: Path) -> None:
    run = made(tmp_path, 0)
    with pytest.raises(StoreError, match="no round"):
        CliRunner().invoke(app, ["plot", str(run.directory)], catch_exceptions=False)
    assert CliRunner().invoke(app, ["plot", str(run.directory), "--out", str(tmp_path / "p.svg")]).exit_code == 2
