"""`fl trust RUN`: seal a run that somebody else made, or whose files were changed, as one's own."""

import typer

from fl_cli import runs
from fl_cli.words import damage
from fl_server.store.seals import trust as trust_


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("trust")(trust)


def trust(run: runs.Name, store: runs.Store = runs.STORE) -> None:
    """Seal RUN as yours, as it is now: what it names is run and opened from then on. Look at it first."""
    found = runs.find(run, store)
    with found.lock():
        for event in found.heal():
            typer.echo(f"warning: {damage(event)}", err=True)
        found.files.sign()
    uses = ", ".join(trust_.named(found.settings)) or "nothing but what is built in"
    typer.echo(f"run {found.name} is yours now. It uses {uses}.")
