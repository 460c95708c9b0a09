"""`fl simulate`: a whole federation in this one process, without a network: thousands of clients, trained in bulk."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fl_cli import options
from fl_cli.display import Display
from fl_cli.federation import Stopped, stopping_on_signals
from fl_cli.follow import RunFailed
from fl_cli.up import absolute, short
from fl_common.errors import ParterreError
from fl_common.settings import Settings
from fl_server.runs import SETTINGS, Run, new_name
from fl_simulation import population

if TYPE_CHECKING:
    from fl_simulation.engine import BatchedEngine

Clients = Annotated[int, typer.Option(min=1, help="Clients of the simulated federation.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("simulate")(simulate)


def simulate(
    task: options.Task = None,
    clients: Clients = 100,
    rounds: options.Rounds = None,
    strategy: options.Strategy = None,
    fraction: options.Fraction = None,
    seed: options.Seed = None,
    assign: options.Assignments = None,
    config: options.Config = None,
    out: options.Out = None,
    store: options.Store = None,
    as_json: options.Json = False,
) -> None:
    """Run a federation of CLIENTS simulated clients in this process; the same task and settings as `fl up`."""
    settings = options.gather(
        {
            "task": absolute(task),
            "rounds": rounds,
            "strategy": strategy,
            "fraction": fraction,
            "seed": seed,
            "out": out,
            "store": store,
        },
        assignments=assign,
        config=config,
        defaults=population.defaults(clients),
    )
    settings = population.fitting(settings, clients)
    options.check_names(settings)
    directory = Path(settings.out or Path(settings.store) / new_name(settings)).resolve()
    settings = settings.model_copy(update={"out": str(directory)})
    start(settings, clients=clients, as_json=as_json)


def start(settings: Settings, *, clients: int, as_json: bool, run: Run | None = None) -> None:
    """Simulate to the end. run: one to go on with; by default a new one in `settings.out`.

    What cannot be simulated is found before a new run is begun. Raises RunFailed where anything but ParterreError ends
    the run.
    """
    from fl_simulation.fast import TensorFlow

    tensorflow = TensorFlow.imported()
    tensorflow.share_cores(settings)
    from fl_simulation.engine import BatchedEngine

    with stopping_on_signals():
        try:
            engine = BatchedEngine(settings)
            tensorflow.suit(engine.trainer.model)
            with Display.for_terminal(as_json=as_json) as display:
                _serve(engine, settings, clients, run, Shown(display))
        except Stopped as stopped:
            begun = (Path(settings.out) / SETTINGS).exists()
            after = f"; go on with: fl resume {short(Path(settings.out))}" if begun else " before the run began"
            typer.echo(f"stopped{after}", err=True)
            raise SystemExit(128 + stopped.number) from None
        except ParterreError:
            raise
        except Exception as error:
            raise RunFailed(f"{type(error).__name__}: {error}") from error


def _serve(engine: "BatchedEngine", settings: Settings, clients: int, run: Run | None, shown: "Shown") -> None:
    from fl_server.app import serve
    from fl_simulation.fast import settled
    from fl_simulation.fleet_grid import grid_of
    from fl_simulation.hostile import with_hostile

    if settings.partitions:
        engine.check(settings.partitions)
    peopled = with_hostile(engine, settings, clients, lambda event: engine.announce(event))
    writing = run or Run.create(Path(settings.out), settings)

    def told(event: Mapping[str, Any]) -> None:
        shown.on_event(writing.append(event))
        if event["event"] == "engine":
            settled()  # programs and data are there

    engine.announce = told
    grid = grid_of(settings, clients, peopled, engine.sizes)
    serve(grid, settings, writing, observer=shown, evaluate=engine.test())


class Shown:
    """An observer that shows every event."""

    def __init__(self, display: Display) -> None:
        self._display = display

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Show one event."""
        self._display.on_event(event)

    def close(self) -> None:
        """The display is closed by whoever opened it."""
