"""`fl stop RUN`: end a run as it stands; what is committed stays, and `fl resume` goes on from there."""

import os
import signal
import time
from typing import Annotated

import typer

from fl_cli import options, runs
from fl_cli.running import named, runner
from fl_cli.up import short
from fl_common.errors import StoreError
from fl_server.runs import Run

PATIENCE = 120.0  # seconds: a simulation ends its round first
LOOK_SECONDS = 0.1

Name = Annotated[str, typer.Argument(metavar="RUN", help="A run's directory, its name under --store, or its number.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("stop")(stop)


def stop(
    run: Name,
    store: runs.Store = runs.STORE,
    server: options.ControlAddress = options.CONTROL,
    ca: options.ControlCa = None,
    credential: options.ControlCredential = None,
    insecure: options.Insecure = False,
) -> None:
    """End RUN, whoever runs it: `fl up`, `fl simulate` or, named by its number or directory, a server."""
    from fl_cli.run import reach

    found = named(run, store)
    number = found if isinstance(found, int) else _told(found)
    if number is not None:
        with reach(server, store, ca, credential, insecure=insecure) as control:
            control.stop(number)
    if isinstance(found, Run):
        _wait(found)
        typer.echo(f"stopped; go on with: fl resume {short(found.directory)}")
    else:
        typer.echo(f"run {found} is stopped; the server keeps its rounds so far")


def _told(run: Run) -> int | None:
    """Tell the process that runs a run to stop; where a server does, return its number there."""
    who = runner(run)
    if not who:
        raise StoreError(f"run {run.name} does not run: it is {run.status}.")
    if who.process is not None:
        os.kill(who.process, signal.SIGTERM)
    return who.number


def _wait(run: Run) -> None:
    limit = time.monotonic() + PATIENCE
    while runner(run):
        if time.monotonic() > limit:
            raise StoreError(f"run {run.name} was told to stop, and still runs after {PATIENCE:.0f} s.")
        time.sleep(LOOK_SECONDS)
