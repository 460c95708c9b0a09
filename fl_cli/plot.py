"""`fl plot RUN`: draw a run, finished or not, into a PNG."""

from pathlib import Path
from typing import Annotated

import typer

from fl_cli import runs


def register(app: typer.Typer) -> None:
    """Add `fl plot` to the command line."""
    app.command(name="plot")(plot)


def plot(
    run: runs.Name,
    out: Annotated[Path | None, typer.Option(help="PNG file to write.", show_default="plot.png in the run")] = None,
    store: runs.Store = runs.STORE,
) -> None:
    """Draw a run: loss and accuracy a round with their spread over the clients, seconds and bytes."""
    from fl_server.observers import plots

    found = runs.find(run, store)
    path = out or found.directory / "plot.png"
    if path.suffix != ".png":
        raise typer.BadParameter(
            f"the plot is a PNG: expected a name that ends in .png; got {path}", param_hint="--out"
        )
    plots.draw(found.events(), path)
    typer.echo(str(path))
