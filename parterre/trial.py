"""A task of a person's own, tried in a process of its own before anything is started for it."""

from multiprocessing.process import BaseProcess
from pathlib import Path

from fl_common.errors import ParterreError, TaskError
from fl_common.processes.forking import ForkServer, last_words
from fl_common.settings.schema import Settings
from fl_common.tasks import user_modules
from fl_common.tasks.builtin import BUILT_IN

SECONDS = 300.0
LOG = "trial.log"


class Trial:
    """Imports the task and builds its model in a child of `fork_server`, beside what else is started."""

    def __init__(self, fork_server: ForkServer, settings: Settings, logs: Path) -> None:
        self._log = logs / LOG
        self._log.unlink(missing_ok=True)
        self._child: BaseProcess | None = None
        if settings.task not in BUILT_IN:
            self._child = fork_server.start(attempt, settings, name="trial", log_file=self._log)

    def wait(self) -> None:
        """Return when all is well. Raises TaskError, with the child's own words, where it is not."""
        if self._child is None:
            return
        self._child.join(SECONDS)
        if self._child.exitcode not in (0, None):
            words = last_words(self._log, 1).removeprefix("error: ")
            raise TaskError(words or f"the task could not be tried (exit code {self._child.exitcode})")
        self._log.unlink(missing_ok=True)


def attempt(settings: Settings) -> None:
    """Import the task and build its model. Raises TaskError with the line in the person's own file."""
    from fl_common.tasks.task import build, resolve

    try:
        build(resolve(settings), settings.seed)
    except ParterreError:
        raise
    except Exception as error:
        raise TaskError(explained(error, settings.task)) from error


def explained(error: Exception, task: str) -> str:
    """Return one line on what a person's own code raised, and where."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text} ({user_modules.place(error, task)}). Mend it and start again."
