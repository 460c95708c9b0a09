"""`fl plot RUN`: draw a run, finished or not, as PNG, SVG or PDF."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from fl_cli import runs
from fl_common.errors import StoreError
from fl_server.store.runs import Run


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
    path = drawable(out or found.directory / "plot.png")
    with readable(found, "drawn"):
        plots.draw(found.events(), path)
    typer.echo(str(path))


def drawable(path: Path) -> Path:
    """Return the path of a picture. Raises BadParameter where its name ends in no format that is drawn."""
    from fl_server.observers import plots

    if path.suffix not in plots.FORMATS:
        raise typer.BadParameter(
            f"expected a name that ends in {', '.join(plots.FORMATS)}; got {path}", param_hint="--out"
        )
    return path


@contextmanager
def readable(run: Run, what: str) -> Iterator[None]:
    """Raise StoreError where the events of a run hold what no run writes: why it cannot be drawn, or compared."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        why = run.damage or f"its events hold what no run writes ({type(error).__name__}: {error})"
        raise StoreError(f"run {run.name} cannot be {what}: {why}") from error
