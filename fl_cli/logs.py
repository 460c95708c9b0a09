"""`fl logs NAME`: what the processes of a run logged: all of them, or one client's."""

from pathlib import Path
from typing import Annotated

import typer

from fl_cli import options, runs
from fl_cli.running import named, number_of
from fl_common.errors import StoreError
from fl_common.trust.untrusted_text import clean
from fl_server.store.runs import Run, listing
from parterre.federation import LOGS

LONGEST = 10_000  # characters of a line

Name = Annotated[
    str,
    typer.Argument(
        metavar="RUN|CLIENT",
        help="A run's directory, name or number; client-1, of the newest run that has one; or RUN/client-1.",
    ),
]
Lines = Annotated[int, typer.Option(min=0, help="Only so many lines, the last ones, of each log. 0: all.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("logs")(logs)


def logs(
    name: Name,
    lines: Lines = 0,
    store: runs.Store = runs.STORE,
    server: options.ControlAddress = options.CONTROL,
    ca: options.ControlCa = None,
    credential: options.ControlCredential = None,
    insecure: options.Insecure = False,
) -> None:
    """Print what the processes of a run logged, or one of them; of a server's run, the server's own log of it."""
    from fl_cli.run import reach

    if (path := _of_client(name, store)) is not None:
        _print(path, lines, "")
        return
    found = named(name, store)
    paths = sorted((found.directory / LOGS).glob("*.log")) if isinstance(found, Run) else []
    for path in paths:
        _print(path, lines, f"{path.stem}  " if len(paths) > 1 else "")
    number = found if isinstance(found, int) else None if paths else number_of(found)
    if number is not None:
        with reach(server, store, ca, credential, insecure=insecure) as control:
            for line in control.log(number):
                typer.echo(clean(line, most=LONGEST))
    elif not paths:
        raise StoreError(f"run {name} has no logs. A simulation says all it has to say where it runs.")


def _of_client(name: str, store: Path) -> Path | None:
    """Return the log of a process that is named, with its run or by itself; None where the name is none of one."""
    run, _, process = name.rpartition("/")
    if run:
        places = [Path(run) / LOGS, store / run / LOGS]
    else:
        newest = sorted(listing(store), key=lambda each: each.directory.stat().st_mtime, reverse=True)
        places = [each.directory / LOGS for each in newest]
    return next((path for place in places if (path := place / f"{process}.log").is_file()), None)


def _print(path: Path, lines: int, before: str) -> None:
    found = path.read_text(errors="replace").splitlines()
    for line in found[-lines:]:
        typer.echo(before + clean(line, most=LONGEST))
