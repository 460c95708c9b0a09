"""`fl resume`: go on with a run from its newest checkpoint, on this machine."""

from typing import Annotated

import typer

from fl_cli import options, simulate, up
from fl_cli.runs import STORE, find
from fl_common import settings as settings_
from fl_common.errors import SettingsError, StoreError

FIXED = ("task", "model", "seed", "strategy", "partitioning")  # what a run was begun with, it ends with


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("resume")(resume)


def resume(
    run: Annotated[str, typer.Argument(help="Directory of the run, or its name under --store.")],
    clients: Annotated[
        int | None, typer.Option(min=1, help="Client processes. (default: one for each partition so far)")
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds to end at. (default: as the run began)")] = None,
    assign: options.Assignments = None,
    store: options.Store = None,
    insecure: options.Insecure = False,
    as_json: options.Json = False,
) -> None:
    """Go on with RUN from its newest whole checkpoint; it ends in the weights of one never interrupted."""
    found = find(run, store or STORE)
    if found.status == "running":
        raise StoreError(f"run {found.name} is running. Wait for it to end, or stop it.")
    changes = settings_.assigned(assign or ()) | ({"rounds": rounds} if rounds is not None else {})
    for key in FIXED:
        if key in changes:
            raise SettingsError(f"{key} cannot change in the middle of a run. Begin a new one with `fl up`.")
    settings = settings_.parse(found.settings.model_dump() | changes)
    checkpoint = found.latest()
    before = int(checkpoint.notes["partitions"]) if checkpoint is not None else settings.partitions
    clients = clients or max(settings.min_clients, before)
    if any(event["event"] == "engine" for event in found.events()):
        settings = settings.model_copy(update={"out": str(found.directory)})
        simulate.start(settings, clients=clients, as_json=as_json, run=found)
    else:
        up.start(found, settings, clients=clients, as_json=as_json, insecure=insecure)
