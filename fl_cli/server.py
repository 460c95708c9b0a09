"""`fl server`: a Flower SuperLink that stays up, is started again when it falls, and runs what is submitted to it."""

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from fl_cli import options
from fl_cli.federation import Stopped, stopping_on_signals
from fl_common.errors import NetworkError
from fl_common.nursery import Nursery
from fl_server.disk import plainly
from fl_server.superlink import PRELOAD, Addresses, SuperLink

STATE = ".superlink"
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
STEADY_SECONDS = 60.0
MOST_FALLS = 5


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
    store: options.Store = None,
) -> None:
    """Run a server until SIGTERM or Ctrl-C. Runs and nodes it knows outlast a fall of its SuperLink."""
    directory = (store or Path(os.environ.get("FL_STORE", "runs"))).resolve()
    addresses = Addresses(f"{host}:{fleet_port}", f"{control_host}:{control_port}", f"127.0.0.1:{appio_port}")
    home = directory / STATE
    with plainly(f"use the store {directory}"):
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    nursery = Nursery(PRELOAD)
    environment = {"FLWR_HOME": str(home), "FL_STORE": str(directory)}
    superlink = SuperLink(
        nursery, addresses, directory=home, home=home, database=home / "state.db", environment=environment
    )
    with stopping_on_signals():
        try:
            supervise(superlink, addresses)
        except Stopped:
            typer.echo("stopping")
        finally:
            superlink.stop()
            nursery.stop()


def supervise(superlink: SuperLink, addresses: Addresses) -> None:
    """Keep the SuperLink up. Raises NetworkError after MOST_FALLS falls, each within STEADY_SECONDS of its start."""
    falls = 0
    while True:
        started = time.monotonic()
        superlink.start()
        superlink.wait_until_ready()
        typer.echo(f"server is up. Clients: fl client --server {addresses.fleet}")
        typer.echo(f"              Runs:    fl run --server {addresses.control} --task digits")
        while superlink.alive:
            time.sleep(0.2)
        falls = falls + 1 if time.monotonic() - started < STEADY_SECONDS else 1
        if falls > MOST_FALLS:
            raise NetworkError(f"the SuperLink fell {falls} times in a row; the last words: {superlink.last_words()}")
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (falls - 1))
        typer.echo(f"the SuperLink fell ({superlink.last_words()}); starting it again in {pause:g} s", err=True)
        time.sleep(pause)
