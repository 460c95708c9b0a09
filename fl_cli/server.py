"""`fl server`: a Flower SuperLink that stays up, is started again when it falls, and runs what is submitted to it."""

import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import typer

from fl_cli import first_run, options
from fl_cli import server_options as given
from fl_cli.federation import Stopped, stopping_on_signals
from fl_cli.server_options import names_of
from fl_cli.words import DESCRIBE
from fl_common.settings import Settings
from fl_server import access
from fl_server.access import LOST_AFTER_SECONDS, Access
from fl_server.addresses import Addresses, called
from fl_server.disk import plainly
from fl_server.events import Event
from fl_server.server import Server
from fl_server.supervisor import LIMIT
from fl_server.tenancy import alone

LOCK = "server.lock"
TICK_SECONDS = 0.1


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("server")(server)


def server(
    host: given.Host = "127.0.0.1",
    fleet_port: given.FleetPort = 9092,
    control_port: given.ControlPort = 9093,
    control_host: given.ControlHost = "127.0.0.1",
    appio_port: given.AppioPort = 9091,
    name: given.Name = None,
    certificate: given.Certificate = None,
    key: given.Key = None,
    ca: given.Authority = None,
    lost_after: given.LostAfter = LOST_AFTER_SECONDS,
    insecure: options.Insecure = False,
    store: options.Store = None,
    max_restarts: given.MaxRestarts = LIMIT,
    auto_run: given.AutoRun = False,
    metrics_port: options.MetricsPort = 0,
    metrics_host: options.MetricsHost = "127.0.0.1",
) -> None:
    """Run a server until SIGTERM or Ctrl-C. Its runs and nodes outlast a fall of anything in it, and of the server."""
    directory, home = options.store_or_default(store), options.home_of(store)
    wanted = first_run.settings_of(directory) if auto_run else None
    addresses = Addresses(f"{host}:{fleet_port}", f"{control_host}:{control_port}", f"127.0.0.1:{appio_port}")
    names = [*(names_of(name) or access.own_names(host)), *access.own_names(control_host)]
    files = access.given(certificate, key, ca)
    options.warn_if(insecure)
    with plainly(f"use the store {directory}"):
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with stopping_on_signals(), suppress(Stopped), alone(home / LOCK, f"the store {directory}") as crashed:
        entry = access.prepare(home, names=names, files=files, insecure=insecure, lost_after_seconds=lost_after)
        running = Server(directory, addresses, entry, max_restarts=max_restarts, say=_say, tell=_tell)
        if metrics_port:
            _serve_metrics(metrics_host, metrics_port, directory, running)
        _run(running, directory, addresses, entry, wanted, crashed=crashed)


def _run(
    running: Server, store: Path, addresses: Addresses, entry: Access, wanted: Settings | None, *, crashed: bool
) -> None:
    try:
        running.start(crashed=crashed)
        if wanted is not None:
            control = partial(access.control, entry, called(addresses.control))
            first_run.submit_once(wanted, store, running.database, control)
        _announce(addresses, entry.insecure)
        while True:
            if running.tick():
                _announce(addresses, entry.insecure)
            time.sleep(TICK_SECONDS)
    except Stopped:
        typer.echo("stopping")
        running.leave()
    finally:
        running.stop()


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


def _serve_metrics(host: str, port: int, store: Path, running: Server) -> None:
    from fl_common import exposition
    from fl_server import metrics

    exposition.serve(host, port, metrics.registry(store, store / options.HOME / "state.db", running.pids))
