"""`fl runs` and `fl runs show RUN`: what there is in the run store; and how other commands find a run by its name."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fl_cli.display import JsonLines
from fl_cli.words import DESCRIBE, measure
from fl_common.errors import ParterreError, StoreError
from fl_server import checkpoints
from fl_server.runs import CHECKPOINTS, SETTINGS, Run, Status, listing

Store = Annotated[Path, typer.Option(envvar="FL_STORE", help="Directory that holds the runs.")]
Name = Annotated[str, typer.Argument(metavar="RUN", help="A run's directory, or its name under --store.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]

STORE = Path("runs")
COLOURS: dict[Status, str] = {"finished": "green", "running": "cyan", "failed": "red", "interrupted": "yellow"}
COLUMNS = ("run", "status", "task", "strategy", "rounds", "accuracy", "loss", "began")
NUMERIC = ("rounds", "accuracy", "loss")


def register(app: typer.Typer) -> None:
    """Add `fl runs` and `fl runs show` to the command line."""
    group = typer.Typer(name="runs", help="List the runs of this machine, or show one.", invoke_without_command=True)
    group.callback()(show_all)
    group.command(name="show")(show)
    app.add_typer(group)


def find(name: str, store: Path) -> Run:
    """Open the run of a directory or, failing that, of a name under the store. Raises StoreError where neither is."""
    for directory in (Path(name), store / name):
        if (directory / SETTINGS).is_file():
            return Run.open(directory)
    raise StoreError(f"there is no run {name}: neither {name} nor {store / name} holds one. {_known(store)}")


def show_all(context: typer.Context, store: Store = STORE, as_json: Json = False) -> None:
    """List the runs of this machine, or show one."""
    if context.invoked_subcommand is not None:
        return
    rows = [summary(run) for run in listing(store)]
    if as_json:
        lines = JsonLines(sys.stdout)
        for row in rows:
            lines.on_event(row)
    elif rows:
        _table([{column: _cell(column, row) for column in COLUMNS} for row in rows])
    else:
        typer.echo(f"There is no run in {store}. Begin one: fl up --task digits --clients 4 --rounds 10")


def show(run: Name, store: Store = STORE, as_json: Json = False) -> None:
    """Show a run: its settings that are not the defaults, its rounds and what it left."""
    found = find(run, store)
    if as_json:
        lines = JsonLines(sys.stdout)
        for event in found.events():
            lines.on_event(event)
        return
    _head(found)
    for event in found.events():
        if describe := DESCRIBE.get(event["event"]):
            typer.echo(describe(event))
    if found.status in ("failed", "interrupted"):
        typer.echo(f"next:  fl resume {found.directory}")


def summary(run: Run) -> dict[str, Any]:
    """Return a run in one row: what it is, how far it came and how well. A run that cannot be read says so."""
    row: dict[str, Any] = {"run": run.name, "run_dir": str(run.directory)}
    try:
        settings, rounds, events = run.settings, run.rounds(), run.events()
        row |= {"status": run.status, "task": settings.task, "strategy": settings.strategy}
    except ParterreError as error:
        return row | {"status": "unreadable", "error": str(error)}
    last = rounds[-1] if rounds else {}
    row |= {"round": last.get("round", 0), "rounds": settings.rounds, "began": events[0]["time"] if events else None}
    return row | {key: last.get(key) for key in ("accuracy", "loss")}


def _head(run: Run) -> None:
    status = run.status
    kept = ", ".join(str(number) for number in checkpoints.numbers(run.directory / CHECKPOINTS)) or "none"
    typer.echo(f"{typer.style(run.name, bold=True)}  {typer.style(status, fg=COLOURS[status])}")
    typer.echo(f"directory:    {run.directory}")
    for key, value in run.settings.difference().items():
        typer.echo(f"{key + ':':<13} {value}")
    typer.echo(f"checkpoints:  {kept}\n")


def _cell(column: str, row: dict[str, Any]) -> str:
    if column == "rounds":
        return f"{row['round']}/{row['rounds']}" if "rounds" in row else "-"
    if column in ("accuracy", "loss"):
        return measure(row.get(column))
    if column == "began":
        return str(row.get("began") or row.get("error") or "-")[:19].replace("T", " ")
    return str(row.get(column) or "-")


def _table(rows: list[dict[str, str]]) -> None:
    """Print aligned columns, never cut: a pipe has no width, and colours are left out there."""
    widths = {column: max(len(column), *(len(row[column]) for row in rows)) for column in COLUMNS}

    def aligned(row: dict[str, str]) -> list[str]:
        return [row[c].rjust(widths[c]) if c in NUMERIC else row[c].ljust(widths[c]) for c in COLUMNS]

    typer.echo(typer.style("  ".join(aligned({column: column for column in COLUMNS})).rstrip(), dim=True))
    for row in rows:
        cells = aligned(row)
        colour = COLOURS.get(row["status"], "red")  # type: ignore[call-overload]
        cells[1] = typer.style(cells[1], fg=colour)
        typer.echo("  ".join(cells).rstrip())


def _known(store: Path) -> str:
    names = [run.name for run in listing(store)]
    return f"Runs there: {', '.join(names)}." if names else "Name its directory, or the store with --store."
