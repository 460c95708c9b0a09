"""`fl run`: submit a run to a running server and follow it to its end."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fl_cli import options
from fl_cli.display import Display
from fl_cli.federation import Stopped, stopping_on_signals
from fl_cli.follow import RunFailed, from_log, show
from fl_cli.up import DETACHED

if TYPE_CHECKING:
    from fl_server.control import Control


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("run")(run)


def run(
    server: Annotated[
        str, typer.Option(envvar="FL_CONTROL", help="The server's Control address, HOST:PORT.")
    ] = "127.0.0.1:9093",
    task: options.Task = None,
    rounds: options.Rounds = None,
    strategy: options.Strategy = None,
    fraction: options.Fraction = None,
    seed: options.Seed = None,
    assign: options.Assignments = None,
    config: options.Config = None,
    store: options.Store = None,
    ca: Annotated[
        Path | None, typer.Option(envvar="FL_CONTROL_CA", help="The server's CA. (default: the one in --store)")
    ] = None,
    credential: Annotated[
        Path | None,
        typer.Option(
            envvar="FL_CONTROL_CREDENTIAL", help="File with the credential of Control. (default: the one in --store)"
        ),
    ] = None,
    insecure: options.Insecure = False,
    as_json: options.Json = False,
) -> None:
    """Submit a run to a server and follow it; exits non-zero if it fails. Ctrl-C stops following, not the run."""
    from fl_server import bundle

    options.warn_if(insecure)
    settings = options.gather(
        {"task": task, "rounds": rounds, "strategy": strategy, "fraction": fraction, "seed": seed},
        assignments=assign,
        config=config,
    )
    settings.check_deployable()
    bundle.check(settings)
    with stopping_on_signals(), reach(server, store, ca, credential, insecure=insecure) as control:
        run_id = control.submit(settings)
        typer.echo(f"submitted as run {run_id}", err=True)
        try:
            final = show(from_log(control.log(run_id)), Display.for_terminal(as_json=as_json))
        except Stopped:
            typer.echo(f"no longer following; run {run_id} goes on. Stop it with: flwr stop {run_id}", err=True)
            raise SystemExit(DETACHED) from None
        if final is None:
            status = control.status(run_id)
            if status.outcome == "stopped":
                raise RunFailed(f"run {run_id} was stopped; the server keeps its rounds so far")
            raise RunFailed(f"run {run_id} ended without a result ({status.outcome}): {status.details or 'no details'}")


def reach(server: str, store: Path | None, ca: Path | None, credential: Path | None, *, insecure: bool) -> "Control":
    """Return a client of a Control API: with the CA and credential named, else with those of the store here."""
    from fl_server import access
    from fl_server.control import Control

    if insecure:
        return Control(server)
    if ca is None or credential is None:
        here = access.existing(options.home_of(store))
        ca, credential = ca or here.files.ca, credential or here.credential
    return access.connect(server, ca, credential)
