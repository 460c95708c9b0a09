"""`fl plot`: a run with a round is drawn where it was asked for, and what cannot be drawn says why."""

from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from fl_cli import plot, runs
from fl_common.errors import StoreError
from fl_common.settings.schema import Settings
from fl_server.store.runs import Run


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
    assert CliRunner().invoke(app, ["plot", str(run.directory), "--out", str(tmp_path / "p.gif")]).exit_code == 2


@pytest.mark.parametrize(("name", "begins"), [("p.svg", b"<?xml"), ("p.pdf", b"%PDF")])
def test_a_run_is_drawn_for_paper_and_the_web(app: typer.Typer, tmp_path: Path, name: str, begins: bytes) -> None:
    run = made(tmp_path, 2)
    CliRunner().invoke(app, ["plot", str(run.directory), "--out", str(tmp_path / name)], catch_exceptions=False)
    assert (tmp_path / name).read_bytes().startswith(begins)


def test_events_that_no_run_writes_are_refused_in_a_sentence(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", Settings())
    run.append({"event": "round", "round": 1, "loss": 0.5, "cohort": {"a": []}, "phases": "x"})
    with pytest.raises(StoreError, match="run run cannot be drawn"):
        plot.plot(str(run.directory), None, tmp_path)


def test_a_link_beside_a_plot_is_not_written_through(tmp_path: Path) -> None:
    run = made(tmp_path, 1)
    (tmp_path / "precious").write_text("precious")
    for name in ("plot.png", ".plot.png"):
        (run.directory / name).symlink_to(tmp_path / "precious")
    plot.plot(str(run.directory), None, tmp_path)
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (run.directory / "plot.png").is_symlink()
