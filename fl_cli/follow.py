"""`fl follow RUN`, and following a run: its events, from its directory or a server's log, go to a display.

An exit code says how it ended.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from typing import Annotated, Any

import typer

from fl_cli import options, runs
from fl_cli.display import Display
from fl_common.errors import ParterreError
from fl_server.observers.guarded import Guarded
from fl_server.store.log.events_log import LAST, parse
from fl_server.store.runs import Run

Event = Mapping[str, Any]
MARK = '{"event":'  # how an event begins in a server's log
DETACHED = 130  # the exit code of a command that was told to follow no longer
GOES_ON = "goes on, not followed"
QUIET_SECONDS = 3.0
GAPS = 3  # the exit code of a run that finished although a round had less than half of those it asked


class RunFailed(ParterreError):  # noqa: N818
    """The run ended without finishing. The message is the server's own."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("follow")(follow)


def follow(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run's directory, its name under --store, or its number.")
    ],
    store: runs.Store = runs.STORE,
    server: options.ControlAddress = options.CONTROL,
    ca: options.ControlCa = None,
    credential: options.ControlCredential = None,
    insecure: options.Insecure = False,
    allow_partial: options.AllowPartial = False,
    as_json: options.Json = False,
) -> None:
    """Show RUN from its beginning until it ends, whoever runs it. Ctrl-C stops following, not the run."""
    from fl_cli.run import followed, reach
    from fl_cli.running import named
    from parterre.federation import Stopped, stopping_on_signals

    found = named(run, store)
    with stopping_on_signals():
        if isinstance(found, int):
            with reach(server, store, ca, credential, insecure=insecure) as control:
                final: Event | None = followed(control, found, as_json=as_json)
        else:
            try:
                final = show(_events(found), Display.for_terminal(as_json=as_json, unfinished=GOES_ON))
            except Stopped:
                typer.echo(f"no longer following; run {found.name} goes on", err=True)
                raise SystemExit(DETACHED) from None
    if final is None:
        raise RunFailed(f"run {run} does not run. Go on with it: fl resume {run}")
    conclude(final, allow_partial=allow_partial)


def _events(run: Run) -> Iterator[Event]:
    """Yield a run's events until it ends, or for a while nobody writes it: a process of it may be started again."""
    from fl_cli.running import runner

    last = time.monotonic()

    def over() -> bool:
        nonlocal last
        last = time.monotonic() if runner(run) else last
        return time.monotonic() - last > QUIET_SECONDS

    return run.follow(over)


def show(events: Iterable[Event], display: Display) -> Event | None:
    """Show events as they come and return the last of them that ends a run. Raises RunFailed for "failed"."""
    final: Event | None = None
    with closing(Guarded(display)) as shown:
        for event in events:
            shown.on_event(event)
            if event["event"] in LAST:
                final = event
    if final is not None and final["event"] == "failed":
        raise RunFailed(str(final["error"]), int(final.get("exit_code", 1)))
    if final is not None and final["event"] == "stopped":
        raise RunFailed("the run was stopped; its rounds so far are kept, and it can go on from there")
    return final


def conclude(final: Event, *, allow_partial: bool) -> None:
    """Exit with GAPS where a finished run has gaps that were not allowed."""
    if final.get("gaps") and not allow_partial:
        raise SystemExit(GAPS)


def from_log(lines: Iterable[str]) -> Iterator[Event]:
    """Yield the events among the lines of a server's log. A task may print there, too, also before an event's line."""
    for line in lines:
        begin = line.find(MARK)
        if begin >= 0 and (event := parse(line[begin:])) is not None:
            yield event
