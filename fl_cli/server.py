"""`fl server`: a Flower SuperLink that stays up, is started again when it falls, and runs what is submitted to it."""

import os
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import typer

from fl_cli import first_run, options, variables
from fl_cli import server_options as given
from fl_cli.server_options import names_of
from fl_cli.table import seconds_of
from fl_cli.words import DESCRIBE
from fl_common.settings.schema import Settings
from fl_common.trust.untrusted_text import clean
from fl_server.access import home_files
from fl_server.access.home_files import LOST_AFTER_SECONDS, Access
from fl_server.processes import repeated_warnings
from fl_server.processes.listening import Addresses, called, known_as
from fl_server.server import Server
from fl_server.store.disk.server_lock import alone
from fl_server.store.disk.whole_writes import plainly
from fl_server.store.log.events_log import LONGEST, Event
from fl_server.superlink.execution.supervisor import LIMIT
from parterre.federation import Stopped, stopping_on_signals

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
    forget_after: given.ForgetAfter = "0",
    insecure: options.Insecure = False,
    store: options.Store = None,
    max_restarts: given.MaxRestarts = LIMIT,
    auto_run: given.AutoRun = False,
    metrics_port: options.MetricsPort = 0,
    metrics_host: options.MetricsHost = "127.0.0.1",
) -> None:
    """Run a server until SIGTERM or Ctrl-C. Its runs and nodes outlast a fall of anything in it, and of the server."""
    directory, home = options.store_or_default(store), options.home_of(store)
    if not auto_run:
        variables.check(os.environ)
    wanted = first_run.wanted(directory, _say) if auto_run else None
    forget = 0.0 if forget_after == "0" else seconds_of(forget_after, "--forget-after")
    repeated_warnings.thin_out()
    addresses = Addresses.of(host, fleet_port, control_host, control_port, appio_port)
    names = [*(names_of(name) or home_files.own_names(host)), *home_files.own_names(control_host)]
    files = home_files.given(certificate, key, ca)
    options.warn_if(insecure)
    with plainly(f"use the store {directory}"):
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with stopping_on_signals(), suppress(Stopped), alone(home / LOCK, f"the store {directory}") as crashed:
        entry = home_files.prepare(
            home,
            names=names,
            files=files,
            insecure=insecure,
            lost_after_seconds=lost_after,
            forget_after_seconds=forget,
        )
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
            control = partial(home_files.control, entry, called(addresses.control))
            first_run.submit_once(wanted, store, running.database, control)
        _announce(addresses, entry)
        while True:
            if running.tick():
                _announce(addresses, entry)
            time.sleep(TICK_SECONDS)
    except Stopped:
        _echo("stopping")
        running.leave()
    finally:
        running.stop()


def _announce(addresses: Addresses, entry: Access) -> None:
    flag = " --insecure" if entry.insecure else ""
    fleet, control = (known_as(address, entry.names) for address in (addresses.fleet, addresses.control))
    _echo(f"server is up. Clients: fl client --server {fleet}{flag}")
    _echo(f"              Runs:    fl run --server {control} --task digits{flag}")


def _say(text: str) -> None:
    _echo(clean(text, most=LONGEST, lines=True), err=True)


def _echo(text: str, *, err: bool = False) -> None:
    """Print. An output that is gone or full is no reason to end a server."""
    with suppress(OSError, ValueError):
        typer.echo(text, err=err)


def _tell(run: str, event: Event) -> None:
    """Say what happens in a run, a line each: what `docker compose logs -f server` shows."""
    if describe := DESCRIBE.get(event["event"]):
        _echo("\n".join(f"{clean(run)}  {line}" for line in describe(event).splitlines()))


def _serve_metrics(host: str, port: int, store: Path, running: Server) -> None:
    from fl_common.processes import metrics_endpoint
    from fl_server.observers import prometheus

    metrics_endpoint.serve(host, port, prometheus.registry(store, store / options.HOME / "state.db", running.pids))
