"""Who runs a run that is named by its directory: a process of `fl up` or `fl simulate`, or a server on this machine."""

from dataclasses import dataclass
from pathlib import Path

from fl_cli import options
from fl_cli.runs import find
from fl_cli.server import LOCK as SERVER_LOCK
from fl_server.store.disk.server_lock import holder
from fl_server.store.run_directories import RunDirectories
from fl_server.store.runs import LOCK, Run
from parterre.federation import HOME, OWNER


@dataclass(frozen=True)
class Runner:
    """Who runs a run: the number that a server knows it by, or the process to be told. Neither: nobody."""

    number: int | None = None
    process: int | None = None

    def __bool__(self) -> bool:
        return self.number is not None or self.process is not None


def named(name: str, store: Path) -> Run | int:
    """Return the run of a directory or a name, or the number by which a server knows one. Raises StoreError."""
    here = (Path(name), store / name)
    return int(name) if name.isdecimal() and not any(path.exists() for path in here) else find(name, store)


def runner(run: Run) -> Runner:
    """Return who runs a run now."""
    if process := holder(run.directory / HOME / OWNER):
        return Runner(process=process)
    process = holder(run.directory / LOCK)
    number = number_of(run)
    if process is None or number is not None:
        return Runner(number if process is not None else None)
    return Runner(process=process)


def number_of(run: Run) -> int | None:
    """Return the number by which the server of the run's store knows it; None where it does not."""
    directory = run.directory.resolve()
    return RunDirectories(directory.parent / options.HOME).numbers().get(directory)


def serves(run: Run) -> bool:
    """Say whether a server has the run's store now."""
    return holder(run.directory.resolve().parent / options.HOME / SERVER_LOCK) is not None
