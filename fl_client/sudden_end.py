"""A client that was killed cannot say so: the next one with its state directory does, from a note that was not removed.

The kernel that kills for memory tells the cgroup, and a new container has a new one. So the note also holds the memory
used so far and its limit, as they were a moment before.
"""

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from fl_common.processes.memory_limit import Kills, kills, sizes

log = logging.getLogger(__name__)

FILE = "running.json"
NOTE_SECONDS = 1.0
MORE = 1.02  # of a peak is worth a new note
NEAR = 0.9  # of the limit: who was killed there was most likely killed for memory


class SuddenEnd:
    """Call `begin` at the start and `end` at an end of any other kind than being killed."""

    def __init__(self, directory: Path, memory: Callable[[], Kills] = kills) -> None:
        self._path = directory / FILE
        self._memory = memory
        self._ended = threading.Event()
        self._writing = threading.Lock()  # so that no note is written after the end
        self._noted = 0

    def begin(self) -> str:
        """Say for what memory an earlier client was killed, "" where it was not; and note that this one runs."""
        why = self._of_the_last()
        self.note()
        threading.Thread(target=self._run, name="memory", daemon=True).start()
        return why

    def note(self) -> None:
        """Note the memory used so far, where it has grown."""
        now = self._memory()
        with self._writing:
            if self._ended.is_set() or (self._path.exists() and (now.peak or 0) <= self._noted * MORE):
                return
            temporary = self._path.with_name(f".{FILE}")
            try:
                temporary.write_text(json.dumps(asdict(now)))
                temporary.replace(self._path)
                self._noted = now.peak or 0
            except OSError as error:
                log.info("%s cannot be written: %s", self._path, error.strerror)

    def end(self) -> None:
        """Note that it was not killed."""
        self._ended.set()
        with self._writing:
            try:
                self._path.unlink(missing_ok=True)
            except OSError as error:
                log.warning(
                    "%s cannot be removed (%s): the next client will say that this one was killed",
                    self._path,
                    error.strerror,
                )

    def _run(self) -> None:
        while not self._ended.wait(NOTE_SECONDS):
            self.note()

    def _of_the_last(self) -> str:
        try:
            last = Kills(**json.loads(self._path.read_text()))
            known = last.peak and last.limit and last.peak / last.limit
            grown = (now := self._memory()).count > last.count
        except (OSError, ValueError, TypeError):  # there is none, or none that says anything
            return ""
        if grown:
            why = f"out of memory: {sizes(now)}"
        elif known and known >= NEAR:
            why = f"most likely out of memory: {sizes(last)}"
        else:
            log.warning(
                "the client before this one was killed, or its machine went off (%s)", sizes(last) or "no limit"
            )
            return ""
        log.warning("the client before this one was killed, %s. Give it more memory, or smaller batches", why)
        return why
