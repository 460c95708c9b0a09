"""`fl up`: a whole federation on this machine, from the first process to the trained model."""

import os
import shutil
from contextlib import closing, suppress
from pathlib import Path
from typing import Annotated

import typer

from fl_cli import options
from fl_cli.display import REPLIED, Display
from fl_cli.follow import Event, RunFailed, conclude, show
from fl_cli.moment import BEGAN
from fl_common.errors import DataError, SettingsError, TaskError
from fl_common.processes.forking import end_helpers
from fl_common.settings.schema import Settings
from fl_server.processes import repeated_warnings
from fl_server.store.disk.whole_writes import check_room
from fl_server.store.log.events_log import read_from
from fl_server.store.runs import LOCK, Run, new_name
from fl_server.store.seals.seals import DATA, SETTINGS
from fl_server.store.seals.seals import FILE as SEAL
from fl_server.superlink.execution.supervisor import LAST_WORDS
from parterre import local_data
from parterre.federation import LOGS, LocalFederation, Stopped, stopping_on_signals, uninterrupted
from parterre.local_data import LocalData

Clients = Annotated[
    int | None, typer.Option(min=1, help="Client processes to start. (default: 4, or one for each --data)")
]
CLIENTS = 4


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("up")(up)


def up(
    task: options.Task = None,
    clients: Clients = None,
    data: local_data.Data = None,
    label: local_data.Label = "",
    ignore: local_data.Ignore = None,
    rounds: options.Rounds = None,
    strategy: options.Strategy = None,
    fraction: options.Fraction = None,
    seed: options.Seed = None,
    assign: options.Assignments = None,
    config: options.Config = None,
    out: options.Out = None,
    store: options.Store = None,
    insecure: options.Insecure = False,
    allow_partial: options.AllowPartial = False,
    as_json: options.Json = False,
) -> None:
    """Run a federation here: a Flower server, CLIENTS client processes and one run; everything stops when it ends."""
    own = LocalData.of(data, label, ignore)
    clients = own.clients(clients, CLIENTS)
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
        defaults={"min_clients": clients, "partitions": clients},
    )
    if settings.min_clients > clients:
        raise SettingsError(f"min_clients must be at most --clients ({clients}); got {settings.min_clients}")
    settings.check_deployable()
    options.check_names(settings)
    directory = Path(settings.out or Path(settings.store) / new_name(settings)).resolve()
    run = Run.create(directory, settings.model_copy(update={"out": str(directory)}))
    options.say_set_aside(run)
    own.keep(run)
    try:
        final = start(run, run.settings, clients=clients, as_json=as_json, insecure=insecure)
    except (TaskError, DataError):
        _take_back(run)
        raise
    conclude(final, allow_partial=allow_partial)


def start(run: Run, settings: Settings, *, clients: int, as_json: bool, insecure: bool = False) -> Event:
    """Run a federation for `run` until it ends; return its last event.

    Raises RunFailed, NetworkError where the processes fail, or TaskError where the task does not work.
    """
    options.warn_if(insecure)
    repeated_warnings.thin_out()
    settings = settings.model_copy(update={"out": str(run.directory), "resume": True})
    seen = len(run.events())
    with stopping_on_signals():
        try:
            display = Display.for_terminal(as_json=as_json, began=BEGAN)
            with (
                closing(display),
                LocalFederation(
                    run.directory,
                    clients=clients,
                    task=_client_task(settings),
                    say=lambda text: typer.echo(text, err=True),
                    insecure=insecure,
                    data=LocalData.kept(run.directory),
                    data_dir=settings.data_dir,
                    needed=settings.min_clients,
                    settings=settings,
                    tell=display.doing,
                ) as federation,
                federation.control() as control,
            ):
                control.submit(settings)
                replies = Replies(run.directory / LOGS / "serverapp.log", display)

                def over() -> bool:
                    replies.look()
                    return bool(federation.tend())

                events = run.follow(over, skip=seen, last=LAST_WORDS)
                try:
                    final = show(events, display)
                except RunFailed:
                    federation.let_the_server_finish(run)
                    raise
                if final is None:
                    check_room(run.directory)
                    raise RunFailed(federation.tend())
                federation.let_the_server_finish(run)
                return final
        except Stopped as stopped:
            begun = f"; go on with: fl resume {short(run.directory)}" if run.events() else " before the run began"
            typer.echo(f"stopped{begun}", err=True)
            _take_back(run)
            raise SystemExit(128 + stopped.number) from None
        except RunFailed as failed:
            raise RunFailed(f"{failed} (logs: {short(run.directory)}/logs)", failed.exit_code) from None
        finally:
            with uninterrupted():
                end_helpers()


class Replies:
    """Shows how many replies a round has so far: the ServerApp says it in its log, and the run's events do not."""

    def __init__(self, log: Path, display: Display) -> None:
        self._log, self._display = log, display
        self._offset = log.stat().st_size if log.exists() else 0

    def look(self) -> None:
        """Show what is new."""
        if self._log.exists() and self._log.stat().st_size < self._offset:  # it was full, and emptied
            self._offset = 0
        fresh, self._offset = read_from(self._log, self._offset)
        for event in [event for event in fresh if event["event"] == REPLIED][-1:]:
            self._display.on_event(event)


def _take_back(run: Run) -> None:
    """Remove the directory of a run that did not begin, with what was written into it here."""
    if run.events():
        return
    shutil.rmtree(run.directory / LOGS, ignore_errors=True)
    for name in (SETTINGS, LOCK, DATA, SEAL):
        (run.directory / name).unlink(missing_ok=True)
    with suppress(OSError):  # it holds something of the person's own
        run.directory.rmdir()


def _client_task(settings: Settings) -> str:
    """Return the task to start clients with: a built-in one needs no telling."""
    from fl_common.tasks.builtin import BUILT_IN

    return "" if settings.task in BUILT_IN else settings.task


def short(directory: Path) -> str:
    """Return a directory as a person would type it from here."""
    return os.path.relpath(directory) if directory.is_relative_to(Path.cwd()) else str(directory)
