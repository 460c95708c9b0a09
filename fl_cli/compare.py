"""`fl compare RUN RUN`: several runs, finished or not, in one table and one plot."""

import json
from pathlib import Path
from typing import Annotated

import typer

from fl_cli import plot, run_comparison, runs
from fl_cli.run_comparison import Side
from fl_common.errors import SettingsError
from fl_common.tasks.user_modules import short_name
from fl_common.trust.untrusted_text import clean

Names = Annotated[list[str], typer.Argument(metavar="RUN RUN...", help="Directories of runs, or names under --store.")]


def register(app: typer.Typer) -> None:
    """Add `fl compare` to the command line."""
    app.command(name="compare")(compare)


def compare(
    names: Names,
    out: Annotated[Path, typer.Option(help="File to draw into: .png, .svg or .pdf.")] = Path("compare.png"),
    store: runs.Store = runs.STORE,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")] = False,
) -> None:
    """Compare runs: one table of how they differ and how well they did, and one plot of every metric they share."""
    from fl_server.observers import comparisons

    path = plot.drawable(out)
    if not 2 <= len(names) <= comparisons.MOST_RUNS:
        alone = f" One run is shown by `fl plot {names[0]}` and `fl runs show {names[0]}`." if len(names) == 1 else ""
        raise SettingsError(
            f"fl compare takes from 2 to {comparisons.MOST_RUNS} runs; got {len(names)}.{alone or ' Name fewer.'}"
        )
    sides, found = [], []
    opened = [runs.find(name, store) for name in names]
    for label, run in zip(run_comparison.labels(opened), opened, strict=True):
        with plot.readable(run, "compared"):
            sides.append(run_comparison.side(label, run))
    shared, settings = run_comparison.shared(sides), run_comparison.differing(sides)
    for side in sides:
        with plot.readable(side.run, "compared"):
            found.append(run_comparison.facts(side, shared, settings))
    comparisons.draw({side.label: side.rounds for side in sides}, shared, path, title=_title(sides))
    if as_json:
        typer.echo(json.dumps({"runs": found, "plot": str(path)}))
        return
    run_comparison.echo(found)
    if line := run_comparison.only_in_some(sides):
        typer.echo(line)
    typer.echo(f"plot: {path}")


def _title(sides: list[Side]) -> str:
    tasks = {clean(short_name(side.run.settings.task)) for side in sides}
    return tasks.pop() if len(tasks) == 1 else "Runs"
