"""Whole runs in process: on the engine, and on the deployed client's own app, over the same grid."""

from pathlib import Path
from typing import Any

from fl_client.app import Workplace, make_app
from fl_common.messages.arrays import Arrays
from fl_common.settings.schema import Settings
from fl_server.app import serve
from fl_server.store.runs import Run
from fl_simulation.engine.engine import BatchedEngine
from fl_simulation.flower.client_apps import ClientAppEngine
from fl_simulation.grid import SimulatedGrid

TASKS = Path(__file__).parent


class Silent:
    """Shows nothing."""

    def on_event(self, event: Any) -> None:
        """Take one event."""

    def close(self) -> None:
        """Nothing is held open."""


def settings_of(clients: int, **more: Any) -> Settings:
    quiet = {"tensorboard": False, "plot": False, "fraction_evaluate": 1.0, "rounds": 3}
    return Settings(**{"partitions": clients, "min_clients": clients, **quiet, **more})


def deployed(directory: Path, settings: Settings) -> Run:
    """Run with the client that is deployed."""
    run = Run.create(directory, settings)
    engine = ClientAppEngine(make_app(Workplace()), settings.partitions)
    serve(SimulatedGrid(settings.partitions, engine), settings, run, observer=Silent())
    return run


def simulated(directory: Path, settings: Settings) -> Run:
    """Run on the engine."""
    run = Run.create(directory, settings)
    engine = BatchedEngine(settings, run.append)
    serve(SimulatedGrid(settings.partitions, engine), settings, run, observer=Silent(), evaluate=engine.test())
    return run


def final(run: Run) -> Arrays:
    checkpoint = run.latest()
    assert checkpoint is not None
    return checkpoint.arrays


def ways(run: Run) -> list[str]:
    return [event["engine"] for event in run.events() if event["event"] == "engine"]
