"""`fl plot RUN`: draw a run, finished or not, as PNG, SVG or PDF."""

from pathlib import Path
from typing import Annotated

import typer

from fl_cli import runs
from fl_common.errors import StoreError


def register(app: typer.Typer) -> None:
    """Add `fl plot` to the command line."""
    app.command(name="plot")(plot)


def plot(
    run: runs.Name,
    out: Annotated[
        Path | None, typer.Option(help="File to write: .png, .svg or .pdf.", show_default="plot.png in the run")
    ] = None,
    store: runs.Store = runs.STORE,
) -> None:
    """Draw a run: every metric of the model a round with its spread over the clients, seconds and bytes."""
    from fl_server.observers import plots

    found = runs.find(run, store)
    path = out or found.directory / "plot.png"
    if path.suffix not in plots.FORMATS:
        raise typer.BadParameter(
            f"expected a name that ends in {', '.join(plots.FORMATS)}; got {path}", param_hint="--out"
        )
    try:
        plots.draw(found.events(), path)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        why = found.damage or f"its events hold what no run writes ({type(error).__name__}: {error})"
        raise StoreError(f"run {found.name} cannot be drawn: {why}") from error
    typer.echo(str(path))
