"""The command `flower-simulation`, as Flower had it until 1.26: any Flower app, N nodes, one process or Flower's Ray.

An app whose clients are ours is trained in bulk; any other ClientApp is called for one node after the other.
"""

import importlib
import importlib.util
import logging
import os
import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from fl_common import settings as settings_
from fl_common.errors import ParterreError, SettingsError
from fl_server.observers.standard_output import StandardOutput
from fl_simulation import population
from fl_simulation.fast import TensorFlow
from fl_simulation.fleet_grid import grid_of
from fl_simulation.grid import Engine
from fl_simulation.hostile import with_hostile

OURS = "fl_client.app:app"
ASSIGNMENT = re.compile(r"""([\w.\-]+)\s*=\s*('[^']*'|"[^"]*"|\S+)""")


@dataclass(frozen=True)
class App:
    """A Flower app's folder, read: where its two halves are, and its configuration."""

    folder: Path
    serverapp: str
    clientapp: str
    config: Mapping[str, settings_.Scalar]


def simulate(
    app: Annotated[Path, typer.Option(help="Folder of a Flower app, with a pyproject.toml.")],
    num_supernodes: Annotated[int, typer.Option(min=1, help="Simulated clients.")],
    run_config: Annotated[str, typer.Option(help="key=value pairs, or a TOML file, over the app's own config.")] = "",
    backend: Annotated[str, typer.Option(help="batched: one process, in bulk. ray: Flower's own.")] = "batched",
    verbose: Annotated[bool, typer.Option("--verbose", help="Log more.")] = False,
) -> None:
    """Simulate a Flower app."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING)
    if backend not in ("batched", "ray"):
        raise SettingsError(f"--backend must be batched or ray; got {backend!r}")
    read = read_app(app, run_config)
    sys.path.insert(0, str(read.folder))
    {"batched": _batched, "ray": _ray}[backend](read, num_supernodes)


def read_app(folder: Path, run_config: str) -> App:
    """Read a Flower app's manifest and lay `run_config` over its config. Raises SettingsError where it is none."""
    manifest = folder / "pyproject.toml"
    try:
        tool = tomllib.loads(manifest.read_text()).get("tool", {})
        app = tool["flwr"]["app"]
        components = app["components"]
        halves = components["serverapp"], components["clientapp"]
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"--app {folder} is no Flower app: {manifest} must have [tool.flwr.app.components] with serverapp and "
            f"clientapp ({type(error).__name__}: {error})."
        ) from None
    return App(folder.resolve(), *halves, config=_flat(app.get("config", {})) | parsed(run_config))


def parsed(text: str) -> dict[str, settings_.Scalar]:
    """Return the run config in `text`, `key=value` pairs or the path of a TOML file. Raises SettingsError."""
    if text.endswith(".toml"):
        return _flat(settings_.read_toml(Path(text)))
    rest = ASSIGNMENT.sub("", text).strip(" ,")
    if rest:
        raise SettingsError(f"--run-config takes key=value pairs with spaces between; got {rest!r}")
    return {key: _value(value) for key, value in ASSIGNMENT.findall(text)}


def _value(text: str) -> settings_.Scalar:
    try:
        value: settings_.Scalar = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return value


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, settings_.Scalar]:
    flat: dict[str, settings_.Scalar] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _batched(app: App, nodes: int) -> None:
    tensorflow = TensorFlow.imported()
    config = dict(app.config)
    engine: Engine
    if app.clientapp == OURS:
        from fl_simulation.engine import BatchedEngine

        config |= population.implied(config, nodes)
        settings = population.fitting(settings_.parse(config, source="the run config"), nodes, "--num-supernodes")
        config = settings.run_config()
        tensorflow.share_cores(settings)
        batched = BatchedEngine(settings)
        tensorflow.suit(batched.trainer.model)
        engine = with_hostile(batched, settings, nodes, StandardOutput().on_event)
        grid = grid_of(settings, nodes, engine, batched.sizes)
    else:
        from fl_simulation.clients import ClientAppEngine

        engine = ClientAppEngine(_load(app.clientapp, ClientApp), nodes, config)
        grid = grid_of(_fleet_settings(config), nodes, engine)
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=config)
    _load(app.serverapp, ServerApp)(grid, context)


def _fleet_settings(config: Mapping[str, settings_.Scalar]) -> settings_.Settings:
    """Return the settings of a fleet among the configuration of an app that is not ours, and its seed."""
    ours = {key: value for key, value in config.items() if key.replace("-", "_").startswith("fleet_")}
    seed = {"seed": config["seed"]} if ours and isinstance(config.get("seed"), int) else {}
    return settings_.parse(ours | seed, source="the run config")


def _ray(app: App, nodes: int) -> None:
    if importlib.util.find_spec("ray") is None:
        raise SettingsError(
            "--backend ray is Flower's own simulation, which needs Ray; it is not installed. "
            "Install it with: pip install 'parterre[ray]', or 'flwr[simulation]>=1.32.1,<1.33' for another app, "
            "or use --backend batched"
        )
    from flwr.simulation import run_simulation

    config = dict(app.config)
    if app.clientapp == OURS:
        config |= population.implied(config, nodes)
        settings = settings_.parse(config, source="the run config")
        config = population.fitting(settings, nodes, "--num-supernodes").run_config()
    whole, server = ServerApp(), _load(app.serverapp, ServerApp)

    @whole.main()
    def main(grid: Any, context: Context) -> None:
        context.run_config = config  # which run_simulation does not pass on
        server(grid, context)

    one_core: dict[str, Any] = {
        "client_resources": {"num_cpus": 1, "num_gpus": 0.0}
    }  # for each client that trains at a time
    run_simulation(whole, _load(app.clientapp, ClientApp), nodes, backend_config=one_core)


def _load(path: str, kind: type[Any]) -> Any:
    module, _, attribute = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # importing a user's module may raise anything
        raise SettingsError(f"the app's {path} does not import: {type(error).__name__}: {error}") from error
    if not isinstance(found, kind):
        raise SettingsError(f"the app's {path} must be a {kind.__name__}; got {type(found).__name__}")
    return found


def main() -> None:
    """Run the command line: errors for a person go to stderr as one line, and the exit code says that there was one."""
    for key, value in (("FLWR_TELEMETRY_ENABLED", "0"), ("TF_CPP_MIN_LOG_LEVEL", "3")):
        os.environ.setdefault(key, value)
    try:
        typer.run(simulate)
    except ParterreError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
