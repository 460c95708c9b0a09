"""The run that a server starts by itself: once, on a store that has none, with the settings of the environment."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from fl_cli import options, variables
from fl_common.errors import ParterreError
from fl_common.settings.schema import Settings
from fl_common.tasks.user_modules import short_name
from fl_server.store.runs import Run, listing
from fl_server.superlink.database import LinkDatabase
from fl_server.superlink.execution.control import Submitted

NOT_COMPARED = {"name", "out", "store", "resume"}  # where a run lies, and whether it goes on, are not what it learns


class Submits(Protocol):
    """What of a server's Control API is needed."""

    def submit(self, settings: Settings) -> Submitted:
        """Submit a run."""


def wanted(store: Path, say: Callable[[str], object]) -> Settings | None:
    """Return the settings of the first run, or None where the store has runs already.

    There a person is told where the settings cannot be run or differ from those of the run that began with them: the
    runs that are there are served all the same. Raises where the store is empty and they cannot be run.
    """
    try:
        settings = settings_of(store)
    except ParterreError as error:
        if not listing(store):
            raise
        say(f"the settings of a first run are wrong: {error} The runs that are there are served all the same.")
        return None
    if changed := differences(settings, store):
        say(
            f"run {_directory(settings, store).name} goes on with the settings that it began with; those of the "
            f"environment differ: {', '.join(changed)}. Begin another run with `fl run`."
        )
    return None if listing(store) else settings


def settings_of(store: Path) -> Settings:
    """Return the settings of the first run, in a directory named for its task. Raises where they cannot be run.

    Nobody is there to start it again, so it waits for its clients as long as it takes, unless the environment says
    otherwise.
    """
    variables.check(os.environ)
    settings = options.gather({}, defaults={"wait_seconds": 0.0})
    options.check_names(settings)
    name = short_name(settings.task)
    if settings.name or settings.out:
        return settings
    return settings.model_copy(update={"name": name, "out": str(store / name)})


def differences(settings: Settings, store: Path) -> list[str]:
    """Return what of these settings differs from those of the run in their directory, as `rounds=500 (10)`."""
    try:
        began = Run.open(_directory(settings, store)).settings.model_dump()
    except ParterreError:  # there is none, or `fl runs` says what it lacks
        return []
    now = settings.model_dump()
    task = Path(str(began["task"])).stem  # a task of one's own is kept beside its run
    return [
        f"{name}={now[name]} ({began[name]})"
        for name in now
        if name not in NOT_COMPARED and now[name] != began[name] and (name, task) != ("task", Path(now["task"]).stem)
    ]


def _directory(settings: Settings, store: Path) -> Path:
    return Path(settings.out) if settings.out else store / settings.name


def submit_once(
    settings: Settings, store: Path, database: LinkDatabase, connect: Callable[[], AbstractContextManager[Submits]]
) -> Submitted | None:
    """Submit the run where neither the store nor SuperLink's database knows one; return it, or None."""
    if listing(store) or database.runs():
        return None
    with connect() as control:
        return control.submit(settings)
