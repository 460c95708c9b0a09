"""The run that a server starts by itself: once, on a store that has none, with the settings of the environment."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from fl_cli import options
from fl_common.settings import Settings
from fl_server.link_database import LinkDatabase
from fl_server.runs import listing


class Submits(Protocol):
    """What of a server's Control API is needed."""

    def submit(self, settings: Settings) -> int:
        """Submit a run and return its number."""


def settings_of(store: Path) -> Settings:
    """Return the settings of the first run, in a directory named for its task. Raises where they cannot be run."""
    settings = options.gather({})
    options.check_names(settings)
    name = settings.task.removesuffix(".py").replace("/", ".").rpartition(".")[2]
    return settings if settings.out else settings.model_copy(update={"out": str(store / name)})


def submit_once(
    settings: Settings, store: Path, database: LinkDatabase, connect: Callable[[], AbstractContextManager[Submits]]
) -> int | None:
    """Submit the run where neither the store nor SuperLink's database knows one; return its number, or None."""
    if listing(store) or database.runs():
        return None
    with connect() as control:
        return control.submit(settings)
