"""`fl runs` and `fl runs show RUN`: what there is in the run store; and how other commands find a run by its name."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from fl_cli import run_table
from fl_cli.display import JsonLines
from fl_cli.options import HOME
from fl_cli.words import described
from fl_common.errors import StoreError
from fl_common.trust.untrusted_text import clean
from fl_server.store import checkpoints
from fl_server.store.log.events_log import LONGEST
from fl_server.store.run_directories import RunDirectories
from fl_server.store.run_files import CHECKPOINTS
from fl_server.store.runs import Run, holds, listing

Store = Annotated[Path, typer.Option(envvar="FL_STORE", help="Directory that holds the runs.")]
Name = Annotated[str, typer.Argument(metavar="RUN", help="A run's directory, or its name under --store.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]

STORE = Path("runs")


def register(app: typer.Typer) -> None:
    """Add `fl runs` and `fl runs show` to the command line."""
    group = typer.Typer(name="runs", help="List the runs of this machine, or show one.", invoke_without_command=True)
    group.callback()(show_all)
    group.command(name="show")(show)
    app.add_typer(group)


def find(name: str, store: Path) -> Run:
    """Open the run of a directory or, failing that, of a name under the store. Raises StoreError where neither is."""
    for directory in (Path(name), store / name):
        if holds(directory):
            return Run.open(directory)
    raise StoreError(f"there is no run {name}: neither {name} nor {store / name} holds one. {_known(store)}")


def show_all(context: typer.Context, store: Store = STORE, as_json: Json = False) -> None:
    """List the runs of this machine, or show one."""
    if context.invoked_subcommand is not None:
        return
    numbers = RunDirectories(store / HOME).numbers()
    rows = run_table.by_time([run_table.summary(run, numbers) for run in listing(store)])
    if as_json:
        lines = JsonLines(sys.stdout)
        for row in rows:
            lines.on_event(row)
    elif rows:
        run_table.echo(rows)
    else:
        typer.echo(f"There is no run in {store}. Begin one: fl up --task digits --clients 4 --rounds 10")


def show(run: Name, store: Store = STORE, as_json: Json = False) -> None:
    """Show a run: its settings that are not the defaults, its rounds and what it left."""
    found = find(run, store)
    if as_json:
        lines = JsonLines(sys.stdout)
        for event in found.each_event():
            lines.on_event(event)
        return
    _head(found)
    for event in found.each_event():
        if text := described(event):
            typer.echo(clean(text, most=LONGEST, lines=True))
    if found.status in ("failed", "interrupted"):
        typer.echo(f"next:  fl resume {found.directory}")


def _head(run: Run) -> None:
    status = run.status
    kept = ", ".join(str(number) for number in checkpoints.numbers(run.directory / CHECKPOINTS)) or "none"
    typer.echo(f"{typer.style(run.name, bold=True)}  {typer.style(status, fg=run_table.COLOURS[status])}")
    directory = run.directory.resolve()
    if number := RunDirectories(directory.parent / HOME).numbers().get(directory):
        typer.echo(f"number:       {number}")
    if damage := run.damage:
        typer.echo(f"damaged:      {clean(damage)}")
    typer.echo(f"directory:    {run.directory}")
    for key, value in run.settings.difference().items():
        typer.echo(f"{key + ':':<13} {value}")
    typer.echo(f"checkpoints:  {kept}\n")


def _known(store: Path) -> str:
    names = [run.name for run in listing(store)]
    return f"Runs there: {', '.join(names)}." if names else "Name its directory, or the store with --store."
