"""Runs that survive their ServerApp: one that ended without a last word is queued again, to go on from its checkpoint.

`fl server` and `fl up` call `tick` a few times a second, and `recover` before they start a SuperLink. What a run has
come to is read from the run store and from the SuperLink's database, so a supervisor that was itself killed loses
nothing. docs/explanation/crashes.md says what survives what.
"""

import json
import logging
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from fl_common.errors import HeldError, StoreError
from fl_common.processes import memory_limit
from fl_server.processes.repeated_warnings import Repeats
from fl_server.store.run_directories import RunDirectories
from fl_server.store.runs import Run, holds
from fl_server.superlink.database import COMPLETED, FAILED, RAISED, STOPPED, LinkDatabase, LinkedRun, in_short, is_lost

log = logging.getLogger(__name__)

LIMIT = 5
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
LOOK_SECONDS = 2.0  # between looks into the database at runs whose process is there
HUNG_SECONDS = 10.0  # what a process may take to end after Flower has ended its run
HELD_SECONDS = 0.5  # until a run that another process writes is asked for again
AGAIN_SECONDS = 5.0  # until a disk that refuses is asked again
LAST_WORDS = ("finished", "failed")
FORK_SERVER_GONE = 255  # what Python says of a process whose fork server was killed with it
PLANNED = "its server was stopped and started again"

Say = Callable[[str], object]


def pause(attempt: int) -> float:
    """Return seconds to wait before the `attempt`-th start (from 1) of something that keeps ending."""
    return float(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (attempt - 1)))


@dataclass
class Watched:
    """A run and the process of its ServerApp. `over_at`: when its run was first seen to have ended."""

    run_id: int
    process: BaseProcess
    over_at: float | None = None


class Supervisor:
    """Watches the ServerApps of one server. `limit`: starts in a row without a committed round in between; 0: none."""

    def __init__(
        self,
        database: LinkDatabase,
        home: Path,
        *,
        limit: int = LIMIT,
        say: Say = log.warning,
        clock: Callable[[], float] = time.monotonic,
        memory: memory_limit.MemoryKills | None = None,
        going_on: Callable[[Run], str] = lambda run: f"fl resume {run.directory}",
    ) -> None:
        self._going_on = going_on  # the command that goes on with a run
        self._memory = memory or memory_limit.MemoryKills()
        self._database = database
        self._whereabouts = RunDirectories(home)
        self._limit = limit
        self._say = say
        self._clock = clock
        self._watched: dict[int, Watched] = {}
        self._due: dict[int, tuple[float, str, int]] = {}  # run -> when, why, which attempt
        self._held: set[int] = set()  # runs that another process writes, of which this was said
        self._unlaunched: deque[tuple[str, str]] = deque()  # of the executor's thread: token, why
        self._attempts: dict[int, int] = {}  # of runs that have no directory yet
        self._looked = clock()
        self._not_before = self._looked
        self._repeats = Repeats(clock)

    def launched(self, token: str, process: BaseProcess) -> None:
        """Watch a ServerApp that was just started; called by the executor's thread."""
        linked = self._database.run_of(token)
        if linked is not None:
            self._watched[linked.run_id] = Watched(linked.run_id, process)

    def not_launched(self, token: str, why: str) -> None:
        """Start a claimed run again that has no process; called by the executor's thread."""
        self._unlaunched.append((token, why))

    def recover(self, *, crashed: bool = True) -> None:
        """Queue the runs of an earlier server again; to be called while no SuperLink and no ServerApp runs.

        Only a server that `crashed` may have been ended by a run, so only then it counts as one of the run's starts.
        """
        for linked in self._database.runs():
            directory = self._whereabouts.directory(linked.run_id)
            begun = directory is not None and (directory / "settings.toml").is_file()
            if linked.claimed and (begun or not linked.outcome):
                self._ended(linked.run_id, "its server ended" if crashed else PLANNED, planned=not crashed)
        self._start_due(everything=True)

    def renew(self) -> None:
        """Keep Flower from giving up runs while the SuperLink is away; to be called before it is started again."""
        self._database.renew()

    def tick(self) -> None:
        """Notice what has ended, and start again what is due. Errors of the disk are said, and it is tried again."""
        if self._clock() < self._not_before:
            return
        try:
            self._look()
            self._start_due()
        except StoreError as error:
            if not self._repeats.are(str(error)):
                self._say(f"{error} It is tried again every {AGAIN_SECONDS:g} s.")
            self._not_before = self._clock() + AGAIN_SECONDS

    def busy(self) -> bool:
        """Say whether a ServerApp runs or is about to be started again."""
        return bool(self._watched or self._due)

    # ---- noticing

    def _look(self) -> None:
        now = self._clock()
        while self._unlaunched:
            token, why = self._unlaunched[0]
            linked = self._database.run_of(token)
            self._unlaunched.popleft()
            if linked is not None:
                self._ended(linked.run_id, why)
        for watched in list(self._watched.values()):
            if not watched.process.is_alive():
                self._ended(watched.run_id, f"its process ended ({ended(watched.process, self._memory)})")
                del self._watched[watched.run_id]
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        for watched in self._watched.values():
            self._look_at_living(watched, now)

    def _look_at_living(self, watched: Watched, now: float) -> None:
        """End a process that does not notice that Flower has ended its run: one that hangs, or was stopped."""
        linked = self._database.run(watched.run_id)
        if linked is None or not linked.outcome:
            return
        watched.over_at = watched.over_at or now
        if now - watched.over_at > HUNG_SECONDS:
            self._say(f"run {watched.run_id}: its process hangs ({linked.details}); it is killed")
            watched.process.kill()
            watched.process.join()

    def _ended(self, run_id: int, why: str, *, planned: bool = False) -> None:
        linked = self._database.run(run_id)
        if linked is None:
            return
        run = self._run(run_id)
        if self._is_final(linked, run):
            self._attempts.pop(run_id, None)
            return
        attempt = 0 if planned else self._attempt(run_id, run)
        why = in_short(linked.details) if linked.details.startswith(RAISED) else why
        wait = pause(attempt) if 0 < attempt <= self._limit else 0.0
        self._due[run_id] = (self._clock() + wait, why, attempt)

    def _is_final(self, linked: LinkedRun, run: Run | None) -> bool:
        """Say whether a run has ended for good; where only its own events say so, tell Flower."""
        if linked.outcome in (COMPLETED, STOPPED):
            return True
        word = _last_word(run)
        if word is None or run is None:
            of_its_own = linked.details.startswith(RAISED) and not is_lost(linked.details)
            return bool(linked.outcome) and of_its_own and run is None
        if not linked.outcome or word["event"] == "finished":  # Flower may have given up a run that had all its rounds
            self._database.tell(linked, json.dumps(word), once=True)
            self._database.finish(linked, COMPLETED if word["event"] == "finished" else FAILED, word.get("error", ""))
        return True

    # ---- starting again

    def _start_due(self, *, everything: bool = False) -> None:
        """Start what is due. A run that another process writes waits for it, and holds up no other."""
        now = self._clock()
        for run_id, (due, why, attempt) in list(self._due.items()):
            if not everything and now < due:
                continue
            try:
                self._restart(run_id, why, attempt)
                self._held.discard(run_id)
                del self._due[run_id]
            except HeldError as error:
                self._due[run_id] = (now + HELD_SECONDS, why, attempt)
                if run_id not in self._held:
                    self._say(f"run {run_id} waits to be started again: {error}")
                self._held.add(run_id)

    def _restart(self, run_id: int, why: str, attempt: int) -> None:
        linked = self._database.run(run_id)
        if linked is None or linked.outcome == STOPPED:  # by a person, meanwhile
            return
        run = self._run(run_id)
        if attempt > self._limit:
            self._give_up(linked, run, why)
            return
        if attempt:
            self._attempts[run_id] = attempt
        self._note(linked, run, {"event": "restarted", "attempt": attempt, "limit": self._limit, "reason": why})
        self._database.queue(linked)
        count = f" ({attempt} of at most {self._limit} in a row)" if attempt else ""
        self._say(f"run {run_id} is started again{count}: {why}")

    def _give_up(self, linked: LinkedRun, run: Run | None, why: str) -> None:
        again = f"`{self._going_on(run)}`" if run is not None else "`fl run`"
        text = (
            f"the run was started again {self._limit} times in a row without completing a round; the last time: {why}. "
            f"Look into serverapp.log beside the server's database, mend it, then go on with {again}."
        )
        self._note(linked, run, {"event": "failed", "error": text, "exit_code": 1})
        self._database.finish(linked, FAILED, text)
        self._say(f"run {linked.run_id} is given up: {text}")

    def _note(self, linked: LinkedRun, run: Run | None, event: Mapping[str, Any]) -> None:
        """Write an event into the run, and for those who follow it from elsewhere into Flower's log of it."""
        if run is None:
            return
        run.lock_seconds = 0.0
        with run.lock():
            written = run.append(event)
        self._database.tell(linked, json.dumps(written))

    def _run(self, run_id: int) -> Run | None:
        directory = self._whereabouts.directory(run_id)
        return Run(directory) if directory is not None and holds(directory) else None

    def _attempt(self, run_id: int, run: Run | None) -> int:
        """Return which start in a row without a committed round in between the next one is, from 1."""
        if run is None:
            return self._attempts.get(run_id, 0) + 1
        course = [event["event"] for event in run.events() if _counts(event)]
        since = next((place for place, kind in enumerate(reversed(course)) if kind != "restarted"), len(course))
        return since + 1


def _counts(event: Mapping[str, Any]) -> bool:
    """Say whether an event is one by which starts in a row are counted: a planned restart is none."""
    kind = event["event"]
    return kind in ("round", *LAST_WORDS) or (kind == "restarted" and event.get("attempt") != 0)


def _last_word(run: Run | None) -> Mapping[str, Any] | None:
    """Return the event that ended a run for good. A "stopped" does not: whoever stops a run for good tells Flower."""
    course = run.events() if run is not None else []
    course = [event for event in course if event["event"] in ("started", "restarted", "round", *LAST_WORDS)]
    return course[-1] if course and course[-1]["event"] in LAST_WORDS else None


def ended(process: BaseProcess | None, memory: memory_limit.MemoryKills) -> str:
    """Say how a process ended: "SIGKILL", "exit code 1", "SIGKILL, out of memory: limit 450 MiB, peak 450 MiB"."""
    code = process.exitcode if process is not None else None
    if code is None or code >= 0:
        word = memory.word() if code == FORK_SERVER_GONE else ""
        return f"exit code {code}" + (f", {word}" if word else "")
    word = memory.word() if -code == signal.SIGKILL else ""
    return signal.Signals(-code).name + (f", {word}" if word else "")
