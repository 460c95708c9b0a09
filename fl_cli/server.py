"""`fl server`: a Flower SuperLink that stays up, is started again when it falls, and runs what is submitted to it."""

import os
import time
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fl_cli import first_run, options
from fl_cli.federation import Stopped, stopping_on_signals
from fl_cli.words import DESCRIBE
from fl_common.nursery import Nursery
from fl_common.pulse import PulseFile
from fl_server.access import LOST_AFTER_SECONDS
from fl_server.disk import plainly
from fl_server.events import Event
from fl_server.kept_up import PORT_SECONDS, KeptUp
from fl_server.link_database import LinkDatabase
from fl_server.superlink import PRELOAD, Addresses, SuperLink, called
from fl_server.supervisor import LIMIT, Supervisor
from fl_server.tenancy import alone, sweep
from fl_server.vitals import Vitals

LOCK = "server.lock"
TICK_SECONDS = 0.1


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("server")(server)


def server(
    host: Annotated[
        str, typer.Option(envvar="FL_HOST", help="Address that the Fleet API listens on; 0.0.0.0 for all.")
    ] = "127.0.0.1",
    fleet_port: Annotated[int, typer.Option(help="Port of the Fleet API, for clients.")] = 9092,
    control_port: Annotated[int, typer.Option(help="Port of the Control API, for `fl run` and `flwr`.")] = 9093,
    control_host: Annotated[str, typer.Option(help="Address that the Control API listens on.")] = "127.0.0.1",
    appio_port: Annotated[int, typer.Option(help="Port of the ServerAppIo API, on loopback.")] = 9091,
    name: Annotated[
        list[str] | None,
        typer.Option(
            "--name",
            metavar="DNS-OR-IP",
            envvar="FL_SERVER_NAMES",
            help="What clients call this server by; its certificate is made for these names. Repeatable, or with "
            "commas. Where none is given and --host is for all: the machine's own name and address.",
        ),
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(envvar="FL_CERTIFICATE", help="Your own certificate (PEM, with its chain).")
    ] = None,
    key: Annotated[Path | None, typer.Option(envvar="FL_KEY", help="The private key of --certificate.")] = None,
    ca: Annotated[Path | None, typer.Option(envvar="FL_CA", help="The CA that --certificate is of.")] = None,
    lost_after: Annotated[
        float, typer.Option(envvar="FL_LOST_AFTER", min=1.0, help="Seconds of silence until a client counts as lost.")
    ] = LOST_AFTER_SECONDS,
    insecure: options.Insecure = False,
    store: options.Store = None,
    max_restarts: Annotated[
        int,
        typer.Option(
            min=0, envvar="FL_MAX_RESTARTS", help="Starts in a row of what keeps falling, without a new round."
        ),
    ] = LIMIT,
    auto_run: Annotated[
        bool,
        typer.Option(
            "--auto-run",
            envvar="FL_AUTO_RUN",
            help="Start a run with the settings of the environment (FL_TASK, FL_ROUNDS, ...) where the store has none.",
        ),
    ] = False,
    metrics_port: options.MetricsPort = 0,
    metrics_host: options.MetricsHost = "127.0.0.1",
) -> None:
    """Run a server until SIGTERM or Ctrl-C. Its runs and nodes outlast a fall of anything in it, and of the server."""
    from fl_server import access

    directory = options.store_or_default(store)
    wanted = first_run.settings_of(directory) if auto_run else None
    addresses = Addresses(f"{host}:{fleet_port}", f"{control_host}:{control_port}", f"127.0.0.1:{appio_port}")
    home = options.home_of(store)
    options.warn_if(insecure)
    with plainly(f"use the store {directory}"):
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    entry = access.prepare(
        home,
        names=[*(names_of(name) or access.own_names(host)), *access.own_names(control_host)],
        files=access.given(certificate, key, ca),
        insecure=insecure,
        lost_after_seconds=lost_after,
    )
    authority = "" if insecure else str(entry.files.ca)
    database = home / "state.db"
    nursery = Nursery(PRELOAD)
    supervisor = Supervisor(LinkDatabase(database), home, limit=max_restarts, say=_say)
    environment = {"FLWR_HOME": str(home), "FL_STORE": str(directory)}
    superlink = SuperLink(
        nursery,
        addresses,
        directory=home,
        access=entry,
        database=database,
        environment=environment,
        launched=supervisor.launched,
    )
    with stopping_on_signals(), alone(home / LOCK, f"the store {directory}") as crashed:
        try:
            vitals = Vitals(directory, PulseFile(home, address=addresses.fleet, authority=authority), tell=_tell)
            vitals.tick("starting", "its SuperLink starts")
            if metrics_port:
                _serve_metrics(metrics_host, metrics_port, directory, superlink)
            sweep(home / "temporary", nursery.temporary)
            supervisor.recover()
            kept = KeptUp(superlink, before=supervisor.renew, limit=max_restarts, say=_say)
            kept.start(patience=PORT_SECONDS if crashed else 0.0)
            if wanted is not None:
                control = partial(access.control, entry, called(addresses.control))
                first_run.submit_once(wanted, directory, LinkDatabase(database), control)
            supervise(kept, supervisor, addresses, vitals, insecure=insecure)
        except Stopped:
            typer.echo("stopping")
            vitals.tick("stopping", "it was told to")
        finally:
            superlink.stop()
            nursery.stop()


def supervise(kept: KeptUp, supervisor: Supervisor, addresses: Addresses, vitals: Vitals, *, insecure: bool) -> None:
    """Keep the SuperLink up and its runs going. Raises NetworkError where the SuperLink keeps falling."""
    _announce(addresses, insecure)
    while True:
        if kept.tick():
            _announce(addresses, insecure)
        supervisor.tick()
        vitals.tick("up" if kept.up else "down", f"runs in {vitals.store}")
        time.sleep(TICK_SECONDS)


def names_of(given: list[str] | None) -> list[str]:
    """Return the names of a repeatable option that also takes commas, as an environment variable has them."""
    return [name.strip() for each in given or [] for name in each.split(",") if name.strip()]


def _announce(addresses: Addresses, insecure: bool) -> None:
    flag = " --insecure" if insecure else ""
    typer.echo(f"server is up. Clients: fl client --server {addresses.fleet}{flag}")
    typer.echo(f"              Runs:    fl run --server {addresses.control} --task digits{flag}")


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _tell(run: str, event: Event) -> None:
    """Say what happens in a run, a line each: what `docker compose logs -f server` shows."""
    if describe := DESCRIBE.get(event["event"]):
        typer.echo("\n".join(f"{run}  {line}" for line in describe(event).splitlines()))


def _serve_metrics(host: str, port: int, store: Path, superlink: SuperLink) -> None:
    from fl_common import exposition
    from fl_server import metrics

    def pids() -> dict[str, list[int | None]]:
        link = [superlink.process.pid] if superlink.process else []
        return {"server": [os.getpid()], "superlink": link, "serverapp": [app.pid for app in superlink.apps]}

    exposition.serve(host, port, metrics.registry(store, store / options.HOME / "state.db", pids))
