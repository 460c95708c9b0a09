"""`fl simulate`: a whole federation in this one process, without a network: thousands of clients, trained in bulk."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fl_cli import options
from fl_cli.display import Display
from fl_cli.events_only import apart
from fl_cli.follow import Event, RunFailed, conclude
from fl_cli.interrupts import Interrupts
from fl_cli.moment import BEGAN
from fl_cli.up import short
from fl_common.errors import ParterreError
from fl_common.settings.schema import Settings
from fl_server.store.runs import Run, holds, new_name
from fl_simulation import population
from parterre.federation import Stopped
from parterre.trial import explained

if TYPE_CHECKING:
    from fl_simulation.engine.engine import BatchedEngine

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
    allow_partial: options.AllowPartial = False,
    as_json: options.Json = False,
) -> None:
    """Run a federation of CLIENTS simulated clients in this process; the same task and settings as `fl up`."""
    settings = options.gather(
        {
            "task": task,
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
    conclude(start(settings, clients=clients, as_json=as_json), allow_partial=allow_partial)


def start(settings: Settings, *, clients: int, as_json: bool, run: Run | None = None) -> Event:
    """Simulate to the end and return the last event. run: one to go on with; by default a new one in `settings.out`.

    What cannot be simulated is found before a new run is begun. Raises RunFailed where anything but ParterreError ends
    the run.
    """
    from fl_simulation.engine.onednn import TensorFlow

    tensorflow = TensorFlow.imported()
    tensorflow.share_cores(settings)
    from fl_simulation.engine.engine import BatchedEngine

    directory = Path(settings.out)
    with Interrupts(lambda text: typer.echo(text, err=True), lambda: _stopped(directory)) as interrupts:
        try:
            with apart():
                engine = BatchedEngine(settings)
            tensorflow.suit(engine.trainer.model)
            with apart() as out, Display.for_terminal(as_json=as_json, out=out, began=BEGAN) as display:
                shown = DisplayObserver(display)
                _serve(engine, settings, clients, run, shown, interrupts.halt)
            return shown.last
        except Stopped as stopped:
            typer.echo(_stopped(directory), err=True)
            raise SystemExit(128 + stopped.number) from None
        except (ParterreError, OSError):
            raise
        except Exception as error:
            raise RunFailed(explained(error, settings.task)) from error


def _stopped(directory: Path) -> str:
    begun = holds(directory)
    return f"stopped; go on with: fl resume {short(directory)}" if begun else "stopped before the run began"


def _serve(
    engine: "BatchedEngine",
    settings: Settings,
    clients: int,
    run: Run | None,
    shown: "DisplayObserver",
    halt: Callable[[], None],
) -> None:
    from fl_server.app import serve
    from fl_server.rounds import stopping
    from fl_simulation.attacks.hostile_clients import with_hostile
    from fl_simulation.engine.onednn import settled
    from fl_simulation.fleet.fleet_grid import grid_of

    if settings.partitions:
        engine.check(settings.partitions)
    stopping.check(settings, engine.trainer.model)
    evaluate = engine.test()
    peopled = with_hostile(engine, settings, clients, lambda event: engine.announce(event))
    writing = run or Run.create(Path(settings.out), settings, simulated=True)
    options.say_set_aside(writing)

    def told(event: Mapping[str, Any]) -> None:
        shown.on_event(writing.append(event))
        if event["event"] == "engine":
            settled()  # programs and data are there

    engine.announce = told
    grid = grid_of(settings, clients, peopled, engine.sizes)
    serve(grid, settings, writing, observer=shown, evaluate=evaluate, halt=halt)


class DisplayObserver:
    """An observer that shows every event."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self.last: Event = {}

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Show one event."""
        self.last = event
        self._display.on_event(event)

    def close(self) -> None:
        """The display is closed by whoever opened it."""
