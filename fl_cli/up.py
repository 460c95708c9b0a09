"""`fl up`: a whole federation on this machine, from the first process to the trained model."""

import os
import shutil
from pathlib import Path
from typing import Annotated

import typer

from fl_cli import options
from fl_cli.display import Display
from fl_cli.federation import LocalFederation, Stopped, stopping_on_signals
from fl_cli.follow import RunFailed, show
from fl_common.errors import NetworkError, SettingsError, StoreError
from fl_common.settings import Settings
from fl_server.runs import Run, new_name
from fl_server.supervisor import LAST_WORDS

DETACHED = 130
LEAST_ROOM = 1 << 20  # bytes

Clients = Annotated[int, typer.Option(min=1, help="Client processes to start.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("up")(up)


def up(
    task: options.Task = None,
    clients: Clients = 4,
    rounds: options.Rounds = None,
    strategy: options.Strategy = None,
    fraction: options.Fraction = None,
    seed: options.Seed = None,
    assign: options.Assignments = None,
    config: options.Config = None,
    out: options.Out = None,
    store: options.Store = None,
    insecure: options.Insecure = False,
    as_json: options.Json = False,
) -> None:
    """Run a federation here: a Flower server, CLIENTS client processes and one run; everything stops when it ends."""
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
        defaults={"min_clients": clients, "partitions": clients},
    )
    if settings.min_clients > clients:
        raise SettingsError(f"min_clients must be at most --clients ({clients}); got {settings.min_clients}")
    settings.check_deployable()
    options.check_names(settings)
    directory = Path(settings.out or Path(settings.store) / new_name(settings)).resolve()
    run = Run.create(directory, settings.model_copy(update={"out": str(directory)}))
    start(run, run.settings, clients=clients, as_json=as_json, insecure=insecure)


def start(run: Run, settings: Settings, *, clients: int, as_json: bool, insecure: bool = False) -> None:
    """Run a federation for `run` until it ends. Raises RunFailed, or NetworkError where the processes fail."""
    options.warn_if(insecure)
    settings = settings.model_copy(update={"out": str(run.directory), "resume": True})
    seen = len(run.events())
    with stopping_on_signals():
        try:
            with (
                LocalFederation(
                    run.directory,
                    clients=clients,
                    task=_client_task(settings),
                    say=lambda text: typer.echo(text, err=True),
                    insecure=insecure,
                ) as federation,
                federation.control() as control,
            ):
                control.submit(settings)
                events = run.follow(lambda: bool(federation.tend()), skip=seen, last=LAST_WORDS)
                try:
                    final = show(events, Display.for_terminal(as_json=as_json))
                except RunFailed:
                    federation.let_the_server_finish(run)
                    raise
                if final is None:
                    check_room(run.directory)
                    raise NetworkError(
                        f"{federation.tend()}. See {run.directory}/logs; its last words: "
                        f"{federation.last_words('serverapp') or federation.last_words('superlink')}"
                    )
                federation.let_the_server_finish(run)
        except Stopped as stopped:
            typer.echo(f"stopped; go on with: fl resume {short(run.directory)}", err=True)
            raise SystemExit(128 + stopped.number) from None
        except RunFailed as failed:
            raise RunFailed(f"{failed} (logs: {short(run.directory)}/logs)", failed.exit_code) from None


def absolute(task: str | None) -> str | None:
    """Return the task with a file's path made absolute."""
    return str(Path(task).expanduser().resolve()) if task is not None and task.endswith(".py") else task


def check_room(directory: Path) -> None:
    """Raise StoreError where the disk is full: then the processes could not even log why they ended."""
    if shutil.disk_usage(directory).free < LEAST_ROOM:
        raise StoreError(f"the disk that holds {directory} is full. Free some space, then go on with `fl resume`.")


def _client_task(settings: Settings) -> str:
    """Return the task to start clients with: a built-in one needs no telling."""
    from fl_common.tasks import BUILT_IN

    return "" if settings.task in BUILT_IN else settings.task


def short(directory: Path) -> str:
    """Return a directory as a person would type it from here."""
    return os.path.relpath(directory) if directory.is_relative_to(Path.cwd()) else str(directory)
