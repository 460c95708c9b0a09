"""`fl simulate`: a whole federation in this one process, without a network: thousands of clients, trained in bulk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from fl_cli import options
from fl_cli.display import Display
from fl_cli.federation import Stopped, stopping_on_signals
from fl_cli.follow import RunFailed
from fl_cli.up import absolute, short
from fl_common.errors import ParterreError, SettingsError
from fl_common.settings import Settings
from fl_server.runs import Run, new_name

EVALUATING = 100  # clients that evaluate in a round, where nothing else is said

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
        defaults=defaults(clients),
    )
    settings = at_any_hour(settings, clients)
    check(settings, clients)
    options.check_names(settings)
    directory = Path(settings.out or Path(settings.store) / new_name(settings)).resolve()
    settings = settings.model_copy(update={"out": str(directory)})
    start(settings, clients=clients, as_json=as_json)


def defaults(clients: int) -> dict[str, Any]:
    """Return the settings that a number of simulated clients implies, where nothing else is said."""
    return {"min_clients": clients, "partitions": clients, "fraction_evaluate": min(1.0, EVALUATING / clients)}


def at_any_hour(settings: Settings, clients: int) -> Settings:
    """Return the settings with no round waiting for a whole fleet of which some are always away."""
    if settings.min_clients < clients or min(settings.fleet_peak, settings.fleet_trough) == 1:
        return settings
    return settings.model_copy(update={"min_clients": max(1, settings.clients_per_round)})


def check(settings: Settings, clients: int) -> None:
    """Raise SettingsError where a cohort cannot be drawn from the population."""
    if settings.min_clients > clients:
        raise SettingsError(f"min_clients must be at most --clients ({clients}); got {settings.min_clients}")
    if settings.clients_per_round > clients:
        raise SettingsError(
            f"clients_per_round must be at most --clients ({clients}); got {settings.clients_per_round}. "
            "Ask for fewer in a round, or simulate more clients."
        )
    if not settings.clients_per_round and round(settings.fraction * clients) < 1:
        raise SettingsError(
            f"fraction={settings.fraction:g} of {clients} clients is none. Set it to at least {1 / clients:g}, "
            "or ask for a number with --set clients_per_round=1"
        )


def start(settings: Settings, *, clients: int, as_json: bool, run: Run | None = None) -> None:
    """Simulate to the end. run: one to go on with; by default a new one in `settings.out`.

    What cannot be simulated is found before a new run is begun. Raises RunFailed where anything but ParterreError ends
    the run.
    """
    from fl_simulation.fast import import_tensorflow, share_cores

    import_tensorflow()
    share_cores(settings)
    from fl_server.app import serve
    from fl_simulation.engine import BatchedEngine
    from fl_simulation.fleet_grid import grid_of
    from fl_simulation.hostile import with_hostile

    directory = Path(settings.out)
    with stopping_on_signals(), Display.for_terminal(as_json=as_json) as display:
        shown = Shown(display)
        try:
            engine = BatchedEngine(settings)
            if settings.partitions:
                engine.pool(settings.partitions)
            peopled = with_hostile(engine, settings, clients, lambda event: engine.announce(event))
            writing = run or Run.create(directory, settings)
            engine.announce = lambda event: shown.on_event(writing.append(event))
            grid = grid_of(settings, clients, peopled, engine.sizes)
            serve(grid, settings, writing, observer=shown, evaluate=engine.test())
        except Stopped as stopped:
            display.close()
            typer.echo(f"stopped; go on with: fl resume {short(directory)}", err=True)
            raise SystemExit(128 + stopped.number) from None
        except ParterreError:
            raise
        except Exception as error:
            raise RunFailed(f"{type(error).__name__}: {error}") from error


class Shown:
    """An observer that shows every event."""

    def __init__(self, display: Display) -> None:
        self._display = display

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Show one event."""
        self._display.on_event(event)

    def close(self) -> None:
        """The display is closed by whoever opened it."""
