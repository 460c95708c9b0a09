"""Whether code that a run names may be run here: where this user made the run, or says so with --trust.

A run directory of somebody else is data until then: its events and arrays are read, its Python and its HDF5 are not.
"""

import os
from pathlib import Path

from fl_common.errors import StoreError
from fl_common.settings.schema import Settings
from fl_common.tasks.builtin import BUILT_IN
from fl_server.store.runs import Run
from fl_server.store.seals import run_key

VARIABLE = "FL_RUN_TRUSTED"  # a command tells its ServerApp which run's directory it has checked
HDF5 = (".keras", ".h5")


def check(run: Run, *, trusted: bool, doing: str, by: str = "add --trust") -> None:
    """Raise StoreError where `doing` runs code for a run that is not this user's, unless that is `trusted`.

    doing: what is done with the run, as "going on with it". by: how a person says that it is trusted. What Python
    compiled of its task is removed.
    """
    run.files.forget_compiled()
    if trusted or run.files.mine or os.environ.get(VARIABLE) == str(run.directory.resolve()):
        return
    reasons = [*named(run.settings), *_links(run.directory)]
    if reasons:
        raise StoreError(
            f"{stranger(run)} {doing.capitalize()} would use {', '.join(reasons)}. Look at that, then {by}."
        )


def stranger(run: Run) -> str:
    """Return in a sentence why a run is not this user's."""
    if strays := run.files.strays():
        return f"{strays[0]} of run {run.name} is not what it was when the run began."
    return f"run {run.name} was not made by this user: it has no seal under the key {run_key.place()}."


def named(settings: Settings) -> list[str]:
    """Return what of these settings is code, or opened by a library that is not safe on a file made to harm."""
    found = [] if settings.task in BUILT_IN else [f"the task {settings.task}"]
    found += [f"the strategy {settings.strategy}"] if ":" in settings.strategy else []
    return found + ([f"the weights {settings.initial}"] if settings.initial.endswith(HDF5) else [])


def _links(directory: Path) -> list[str]:
    """Return the links in a run's directory: what is written into them is written elsewhere."""
    return [f"what the link {each} leads to" for each in sorted(directory.rglob("*")) if each.is_symlink()][:1]
