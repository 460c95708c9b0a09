"""`fl stop RUN`: end a run as it stands; what is committed stays, and `fl resume` goes on from there."""

import os
import signal
import time
from typing import Annotated

import typer

from fl_cli import options, runs
from fl_cli.running import named, number_of, runner, serves
from fl_cli.up import short
from fl_common.errors import StoreError
from fl_server.store.runs import Run

PATIENCE = 120.0  # seconds: a simulation ends its round first
LOOK_SECONDS = 0.1
FINISHED = "finished"

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

    def told_to_stop(number: int, *, of: Run | None = None) -> None:
        with reach(server, store, ca, credential, insecure=insecure) as control:
            if of is not None and control.status(number).ended:
                raise StoreError(_idle(of))
            control.stop(number)

    found = named(run, store)
    again = "fl resume"
    if isinstance(found, int):
        told_to_stop(found)
    elif who := runner(found):
        if who.process is not None:
            os.kill(who.process, signal.SIGTERM)
        if who.number is not None:
            told_to_stop(who.number)
            again = "fl run --resume"
    elif (number := number_of(found)) is not None and serves(found) and found.status != FINISHED:
        again = "fl run --resume"
        told_to_stop(number, of=found)  # between two starts: its server counts it as unended
    else:
        raise StoreError(_idle(found))
    if isinstance(found, Run):
        _wait(found)
        where = short(found.directory) if again == "fl resume" else found.name
        typer.echo(f"stopped; go on with: {again} {where}")
    else:
        typer.echo(f"run {found} is stopped; the server keeps its rounds so far")


def _idle(run: Run) -> str:
    return f"run {run.name} does not run: it is {run.status}."


def _wait(run: Run) -> None:
    limit = time.monotonic() + PATIENCE
    while runner(run):
        if time.monotonic() > limit:
            raise StoreError(f"run {run.name} was told to stop, and still runs after {PATIENCE:.0f} s.")
        time.sleep(LOOK_SECONDS)
