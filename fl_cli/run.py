"""`fl run`: submit a run to a running server and follow it to its end."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fl_cli import options
from fl_cli.display import Display
from fl_cli.follow import DETACHED, GOES_ON, Event, RunFailed, conclude, from_log, show
from fl_common.errors import SettingsError, TaskError
from fl_common.settings.schema import Settings, assigned, parse
from fl_common.tasks import user_modules
from parterre.federation import Stopped, stopping_on_signals

if TYPE_CHECKING:
    from fl_server.superlink.execution.control import Control, Submitted
    from fl_server.superlink.execution.task_files import TaskFiles

    Ask = Callable[[Control], Submitted]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("run")(run)


def run(
    server: options.ControlAddress = options.CONTROL,
    task: options.Task = None,
    rounds: options.Rounds = None,
    strategy: options.Strategy = None,
    fraction: options.Fraction = None,
    seed: options.Seed = None,
    assign: options.Assignments = None,
    config: options.Config = None,
    store: options.Store = None,
    ca: options.ControlCa = None,
    credential: options.ControlCredential = None,
    insecure: options.Insecure = False,
    allow_partial: options.AllowPartial = False,
    name: Annotated[
        str | None, typer.Option(help="Name of the run: submitted once, and followed the next time it is asked for.")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Go on with this run of the server's; only --rounds and --set change it."),
    ] = None,
    wait: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long to wait for a server that does not answer yet.")
    ] = 0.0,
    include: Annotated[
        list[str] | None,
        typer.Option(help="File or folder of the task's folder that goes to the server with it. Repeatable."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Send files that look like data, or are larger than 1 MB, as well.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Submit a run to a server and follow it; exits non-zero if it fails. Ctrl-C stops following, not the run."""
    options.warn_if(insecure)
    if resume is None:
        flags = {"task": task, "rounds": rounds, "strategy": strategy, "fraction": fraction, "seed": seed, "name": name}
        ask = beginning(options.gather(flags, assignments=assign, config=config), include or (), force=force)
    else:
        _only(resume, task=task, strategy=strategy, fraction=fraction, seed=seed, name=name, config=config)
        ask = going_on(resume, rounds, assign)
    with stopping_on_signals(), reach(server, store, ca, credential, insecure=insecure) as control:
        control.wait(wait)
        submitted = ask(control)
        run_id = submitted.run_id
        typer.echo(f"submitted as run {run_id}" if submitted.new else f"it is there, as run {run_id}", err=True)
        if submitted.ignored:
            typer.echo(f"it goes on with the settings that it began with, without {submitted.ignored}", err=True)
        conclude(followed(control, run_id, as_json=as_json), allow_partial=allow_partial)


def followed(control: "Control", run_id: int, *, as_json: bool) -> Event:
    """Show a run of a server to its end and return its last event. Ctrl-C stops following. Raises RunFailed."""
    say = partial(typer.echo, err=True)
    try:
        display = Display.for_terminal(as_json=as_json, unfinished=GOES_ON)
        display.doing("the server is loading the task")
        final = show(from_log(control.log(run_id, say=say)), display)
    except Stopped:
        hint = f"Stop it with: fl stop {run_id}; see more of it with: fl follow {run_id}"
        typer.echo(f"no longer following; run {run_id} goes on. {hint}", err=True)
        raise SystemExit(DETACHED) from None
    if final is not None:
        return final
    status = control.status(run_id)
    if status.outcome == "stopped":
        raise RunFailed(f"run {run_id} was stopped; the server keeps its rounds so far")
    raise RunFailed(f"run {run_id} ended without a result ({status.outcome}): {status.details or 'no details'}")


def beginning(settings: Settings, include: Sequence[str], *, force: bool) -> "Ask":
    """Return what submits a run with these settings. Raises where they, or the files of the task, cannot be sent."""
    import strategies

    settings.check_deployable()
    files = travelling(settings.task, include, force=force)
    own = travelling(strategies.file_of(settings.strategy), (), force=force)
    return lambda control: control.submit(settings, files, own)


def going_on(name: str, rounds: int | None, assign: list[str] | None) -> "Ask":
    """Return what has a server go on with a run of its own. Raises SettingsError for a change that is none."""
    given = {**({"rounds": rounds} if rounds is not None else {}), **assigned(assign or ())}
    changes = {key: value for key, value in parse(given).model_dump().items() if key in given}
    return lambda control: control.resume(name, changes)


def _only(resume: str, **others: object) -> None:
    """Raise SettingsError where an option is given that a run which goes on cannot take."""
    if given := [f"--{option}" for option, value in others.items() if value is not None]:
        raise SettingsError(f"--resume {resume} goes on with that run's own settings, and takes no {', '.join(given)}")


def travelling(task: str, include: Sequence[str], *, force: bool) -> "TaskFiles | None":
    """Return the files of a task or strategy given by its path, and list them; None of one that is the server's own."""
    from fl_server.superlink.execution import task_files

    if not user_modules.is_path(task):
        if include:
            raise TaskError("--include goes with a task that is given by its path, such as --task ./my_task.py")
        return None
    files = task_files.of(task, include, force=force)
    typer.echo(f"sending {files}", err=True)
    return files


def reach(server: str, store: Path | None, ca: Path | None, credential: Path | None, *, insecure: bool) -> "Control":
    """Return a client of a Control API: with the CA and credential named, else with those of the store here."""
    from fl_server.access import home_files
    from fl_server.superlink.execution.control import Control

    if insecure:
        return Control(server)
    if ca is None or credential is None:
        here = home_files.existing(options.home_of(store))
        ca, credential = ca or here.files.ca, credential or here.credential
    return home_files.connect(server, ca, credential)
