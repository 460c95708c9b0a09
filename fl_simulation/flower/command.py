"""The command `flower-simulation`, as Flower had it until 1.26: any Flower app, N nodes, one process or Flower's Ray.

An app whose clients are ours is trained in bulk; any other ClientApp is called for one node after the other.
"""

import logging
import os
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer
from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fl_common.errors import ParterreError, SettingsError
from fl_common.processes import environment
from fl_common.settings import schema as settings_
from fl_server.observers.standard_output import StandardOutput
from fl_simulation import population
from fl_simulation.attacks.hostile_clients import with_hostile
from fl_simulation.engine.onednn import TensorFlow
from fl_simulation.fleet.fleet_grid import grid_of
from fl_simulation.flower.manifest import OURS, App, find_in, load, read_app


def simulate(
    app: Annotated[Path, typer.Option(help="Folder of a Flower app, with a pyproject.toml.")],
    num_supernodes: Annotated[int, typer.Option(min=1, help="Simulated clients.")],
    run_config: Annotated[str, typer.Option(help="key=value pairs, or a TOML file, over the app's own config.")] = "",
    backend: Annotated[str, typer.Option(help="batched: one process, in bulk. ray: Flower's own.")] = "batched",
    verbose: Annotated[bool, typer.Option("--verbose", help="Log more.")] = False,
) -> None:
    """Simulate a Flower app."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING)
    logging.getLogger("flwr").propagate = False  # it shows its lines itself
    if backend not in ("batched", "ray"):
        raise SettingsError(f"--backend must be batched or ray; got {backend!r}")
    read = read_app(app, run_config)
    find_in(read)
    if backend == "batched":
        _batched(read, num_supernodes)
        return
    from fl_simulation.flower.ray_cluster import on_ray

    on_ray(read, num_supernodes, verbose=verbose)


def _batched(app: App, nodes: int) -> None:
    grid, config = (_ours if app.clientapp == OURS else _foreign)(app, nodes)
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=config)
    load(app.serverapp, ServerApp)(grid, context)


def _ours(app: App, nodes: int) -> tuple[Grid, dict[str, settings_.Scalar]]:
    config = dict(app.config) | population.implied(app.config, nodes)
    settings = population.fitting(settings_.parse(config, source="the run config"), nodes, "--num-supernodes")
    tensorflow = TensorFlow.imported()
    tensorflow.share_cores(settings)
    from fl_simulation.engine.engine import BatchedEngine

    with redirect_stdout(sys.stderr):  # a task may print; standard output is for the events
        batched = BatchedEngine(settings)
    tensorflow.suit(batched.trainer.model)
    batched.check(settings.partitions)
    engine = with_hostile(batched, settings, nodes, StandardOutput().on_event)
    return grid_of(settings, nodes, engine, batched.sizes), settings.run_config()


def _foreign(app: App, nodes: int) -> tuple[Grid, dict[str, settings_.Scalar]]:
    from fl_simulation.flower.client_apps import ClientAppEngine

    TensorFlow.imported()
    config = dict(app.config)
    engine = ClientAppEngine(load(app.clientapp, ClientApp), nodes, config)
    return grid_of(_fleet_settings(config), nodes, engine), config


def _fleet_settings(config: Mapping[str, settings_.Scalar]) -> settings_.Settings:
    """Return the settings of a fleet among the configuration of an app that is not ours, and its seed."""
    ours = {key: value for key, value in config.items() if key.replace("-", "_").startswith("fleet_")}
    seed = {"seed": config["seed"]} if ours and isinstance(config.get("seed"), int) else {}
    return settings_.parse(ours | seed, source="the run config")


def main() -> None:
    """Run the command line: errors for a person go to stderr as one line, and the exit code says that there was one."""
    os.environ.setdefault("FLWR_LOG_LEVEL", "INFO")  # an app's own lines, which Flower prints
    for sentence in environment.prepare():
        typer.echo(f"warning: {sentence}", err=True)
    try:
        typer.run(simulate)
    except ParterreError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
