"""`flower-simulation --backend ray`: Flower's own simulation, whose clients work in Ray's workers, on many machines.

The cluster is that of RAY_ADDRESS, or the one that `ray start` began here, or one begun for this run alone.
"""

import importlib.util
import logging
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import typer
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from fl_common.errors import NetworkError, SettingsError
from fl_common.settings import schema as settings_
from fl_common.settings.schema import Scalar
from fl_simulation import population
from fl_simulation.flower.manifest import OURS, App, load

ONE_CORE: Mapping[str, Any] = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}  # for a client while it works
# What the workers' TensorFlow is to find, on every machine: that of a deployed client.
WORKERS = {
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "KERAS_BACKEND": "tensorflow",
    "FLWR_TELEMETRY_ENABLED": "0",
    "PYTHONSAFEPATH": "1",
}
REACH_SECONDS = 10.0
INTERRUPTED = 130


class Imported(ClientApp):
    """A ClientApp that goes to a worker by its name, and is imported there once: what it keeps lasts from message to
    message. Pickled whole, as Flower does it, our models would be traced again for each message.
    """

    def __init__(self, path: str, run_config: Mapping[str, Scalar]) -> None:
        super().__init__()
        self._path, self._run_config = path, dict(run_config)

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer as the app does, with the run config, which Flower's run_simulation does not pass on."""
        app: ClientApp = load(self._path, ClientApp)
        own = Context(context.run_id, context.node_id, context.node_config, context.state, dict(self._run_config))
        try:
            return app(message, own)
        finally:
            context.state = own.state


def on_ray(app: App, nodes: int, *, verbose: bool) -> None:
    """Run an app with so many nodes. Raises SettingsError or NetworkError before it begins, or what the server does."""
    check_installed()
    for key, value in WORKERS.items():
        os.environ.setdefault(key, value)  # before Flower's simulation imports TensorFlow
    config = _config(app, nodes)
    client, server = Imported(app.clientapp, config), load(app.serverapp, ServerApp)
    load(app.clientapp, ClientApp)
    whole, stopping = ServerApp(), threading.Event()

    @whole.main()
    def main(grid: Any, context: Context) -> None:
        context.run_config = config
        pull = grid.pull_messages
        grid.pull_messages = lambda ids: [] if stopping.is_set() else pull(ids)
        server(grid, context)

    logging.getLogger("flwr").addFilter(_without_notice)
    from flwr.simulation import run_simulation

    _join()
    signal.signal(signal.SIGINT, lambda *_: _interrupt(stopping))  # a shell's background jobs begin with it ignored
    try:
        run_simulation(whole, client, nodes, backend_config=dict(ONE_CORE), verbose_logging=verbose)
    except KeyboardInterrupt:
        _leave()
        typer.echo("stopped", err=True)
        os._exit(INTERRUPTED)  # Flower's thread with the server would wait for replies that nobody makes any more
    finally:
        _leave()


def _interrupt(stopping: threading.Event) -> NoReturn:
    """Begin to end: that Flower ends the workers now is no client's failure, neither an event nor a traceback."""
    stopping.set()
    logging.getLogger("flwr").disabled = True
    raise KeyboardInterrupt


def check_installed() -> None:
    """Raise SettingsError where Ray is missing."""
    if importlib.util.find_spec("ray") is None:
        raise SettingsError(
            "--backend ray is Flower's own simulation, which needs Ray; it is not installed. "
            "Install it with: pip install 'parterre[ray]', or 'flwr[simulation]>=1.32.1,<1.33' for another app, "
            "or use --backend batched"
        )


def _config(app: App, nodes: int) -> dict[str, Scalar]:
    config = dict(app.config)
    if app.clientapp != OURS:
        return config
    settings = settings_.parse(config | population.implied(config, nodes), source="the run config")
    settings.check_deployable()  # Flower's grid obeys none of what only our simulation does
    config = population.fitting(settings, nodes, "--num-supernodes").run_config()
    return config | {key: _absolute(str(config[key])) for key in ("task", "data_dir")}


def _absolute(name: str) -> str:
    """Return the name of a file or folder as it is found from a worker's own directory; any other as it is."""
    path = Path(name).expanduser()
    return str(path.resolve()) if name and path.exists() and not name.isidentifier() else name


def _join() -> None:
    import ray

    _reach(os.environ.get("RAY_ADDRESS", ""))
    path = os.pathsep.join(filter(None, [*sys.path, os.environ.get("PYTHONPATH")]))
    variables = {"PYTHONPATH": path, **{key: os.environ[key] for key in WORKERS}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of GPUs, which are left as they are
        try:
            ray.init(runtime_env={"env_vars": variables}, include_dashboard=False, logging_level="WARNING")
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise NetworkError(f"Ray could not be begun or joined: {error}") from error
    if not any(node["Alive"] and node["Resources"].get("CPU", 0) >= 1 for node in ray.nodes()):
        raise NetworkError("the Ray cluster has no node with a CPU for a client. Start one: ray start --num-cpus=2 ...")


def _reach(address: str) -> None:
    """Raise NetworkError where nobody listens at HOST:PORT; Ray would end this process."""
    host, _, port = address.rpartition(":")
    if "/" in address or not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host, int(port)), timeout=REACH_SECONDS).close()
    except OSError as error:
        raise NetworkError(
            f"no Ray cluster at {address}: {error}. Start one with `ray start --head`, or unset RAY_ADDRESS."
        ) from None


def _leave() -> None:
    import ray

    ray.shutdown()


def _without_notice(record: logging.LogRecord) -> bool:
    """Leave out that run_simulation is deprecated: who runs the command cannot do anything about it."""
    return "run_simulation" not in record.getMessage()
