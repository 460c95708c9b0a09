"""`fl resume`: go on with a run from its newest checkpoint, on this machine."""

from typing import Annotated

import typer

from fl_cli import options, simulate, up
from fl_cli.follow import conclude
from fl_cli.runs import STORE, find
from fl_cli.words import damage
from fl_common.errors import SettingsError, StoreError
from fl_common.settings import schema as settings_
from fl_common.settings.schema import Settings
from fl_server.store.runs import Run
from fl_server.store.seals import trust as trust_
from fl_server.store.seals.seals import DATA, SETTINGS
from fl_server.store.seals.seals import FILE as SEAL
from parterre.local_data import LocalData

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
    allow_partial: options.AllowPartial = False,
    trust: options.Trust = False,
    as_json: options.Json = False,
) -> None:
    """Go on with RUN from its newest whole checkpoint; it ends in the weights of one never interrupted."""
    found = find(run, store or STORE)
    if found.status == "running":
        raise StoreError(f"run {found.name} is running. Wait for it to end, or stop it.")
    _make_ready(found, trusted=trust)
    changes = settings_.assigned(assign or ()) | ({"rounds": rounds} if rounds is not None else {})
    for key in FIXED:
        if key in changes:
            raise SettingsError(f"{key} cannot change in the middle of a run. Begin a new one with `fl up`.")
    settings = settings_.parse(found.settings.model_dump() | changes)
    if ended := finished(found, settings if changes else None):
        typer.echo(ended, err=as_json)
        return
    checkpoint = found.latest()
    before = checkpoint.notes.get("partitions") if checkpoint is not None else settings.partitions
    before = before if isinstance(before, int) else 0
    clients = LocalData.kept(found.directory).clients(clients, max(settings.min_clients, before))
    if found.simulated:
        settings = settings.model_copy(update={"out": str(found.directory)})
        final = simulate.start(settings, clients=clients, as_json=as_json, run=found)
    else:
        final = up.start(found, settings, clients=clients, as_json=as_json, insecure=insecure)
    conclude(final, allow_partial=allow_partial)


def finished(run: Run, changed: Settings | None) -> str:
    """Return a sentence where the run is finished, and `changed` settings ask for no more rounds; "" otherwise."""
    if run.status != "finished":
        return ""
    done = next(event for event in reversed(run.events()) if event["event"] == "finished").get("rounds")
    done = done if isinstance(done, int) else run.settings.rounds
    if changed is not None and changed.rounds > done:
        return ""
    return f"run {run.name} is finished, after {done} rounds. More: fl resume {run.directory} --rounds {done + 10}"


def _make_ready(run: Run, *, trusted: bool) -> None:
    """Put back what the run has lost, and say so. Raises StoreError where it is somebody else's and not trusted."""
    trust_.check(run, trusted=trusted, doing="going on with it")
    if not (run.files.seal.texts or trusted):
        raise StoreError(
            f"nothing in run {run.name} says what its files were: {SEAL} is gone, and no checkpoint holds it. Look at "
            f"its {SETTINGS}, and at {DATA} if there was one; then go on with what is there, with --trust."
        )
    with run.lock():
        for event in run.heal():
            typer.echo(f"warning: {damage(event)}", err=True)
        if trusted and not run.files.mine:
            run.files.sign()
