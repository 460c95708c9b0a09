"""The run store: a run is a directory of settings, events and checkpoints, and that directory is the truth about it.

The round loop writes it; resume, displays, plots, export and the gateway read it. It knows no TensorFlow.
"""

import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import IO, Any, Literal, Self, TypeVar

import tomli_w

from fl_common.errors import HeldError, ParterreError, StoreError
from fl_common.settings import schema as settings_
from fl_common.settings.schema import Settings
from fl_common.tasks.user_modules import short_name
from fl_server.store import checkpoints, failed_starts
from fl_server.store.checkpoints import Checkpoint
from fl_server.store.disk import whole_writes
from fl_server.store.disk.disk_wait import Patience, paused
from fl_server.store.log import events_log as events
from fl_server.store.log import log_marks, lost_events, outlines
from fl_server.store.log.events_log import LAST, Event
from fl_server.store.log.log_marks import LogMark
from fl_server.store.log.outlines import Outline
from fl_server.store.retention import Retention
from fl_server.store.run_files import CHECKPOINTS, RunFiles
from fl_server.store.seals import seals
from fl_server.store.seals.seals import SETTINGS

__all__ = ["Checkpoint", "Run", "Status", "listing", "new_name"]

log = logging.getLogger(__name__)

T = TypeVar("T")
Status = Literal["running", "finished", "failed", "interrupted"]

EVENTS, LOCK = "events.jsonl", ".lock"
CLIENTS = "clients.json"
ENDINGS: dict[str, Status] = {"finished": "finished", "failed": "failed", "stopped": "interrupted"}
LOCKING = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW  # a link may lead to a file of another's
LOCK_SECONDS = 0.5  # a reader that asks for the status holds the lock for an instant


class Run:
    """One run. Any number of processes may read it; the one that holds `lock()` writes it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lock_seconds = LOCK_SECONDS
        self.patience = Patience()
        self.set_aside: Path | None = None  # where `create` put what a failed run had left
        self._locked = False
        self._reported: set[int] = set()
        self.files = RunFiles(directory)
        self._mark = LogMark(directory / EVENTS)

    @classmethod
    def create(cls, directory: Path, settings: Settings, *, simulated: bool = False) -> Self:
        """Begin a run in `directory`, made where missing. Raises StoreError where it holds a run or is not writable.

        What a run left there that failed before its first round goes into a folder in it, `set_aside`.
        simulated: it is a simulation, and is resumed as one.
        """
        with whole_writes.plainly(f"begin a run in {directory}"):
            directory.mkdir(parents=True, exist_ok=True)
        run = cls(directory)
        with run.lock(), whole_writes.plainly(f"begin a run in {directory}"):
            if holds(directory) and failed_starts.is_one(directory, EVENTS):
                run.set_aside = failed_starts.set_aside(directory, LOCK)
            elif holds(directory):
                raise StoreError(
                    f"{directory} already holds a run. Name another directory with --out, or continue this one "
                    f"with `fl resume {directory}`."
                )
            run.files.begin({SETTINGS: tomli_w.dumps(settings.model_dump())}, simulated=simulated)
        return run

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open a run that exists. Raises StoreError where there is none, SettingsError where its settings are bad."""
        if not holds(directory):
            raise StoreError(f"there is no run in {directory}: it has no {SETTINGS}. `fl runs` lists those there are.")
        run = cls(directory)
        _ = run.settings
        return run

    @property
    def name(self) -> str:
        """The run's name: that of its directory."""
        return self.directory.resolve().name

    @cached_property
    def settings(self) -> Settings:
        """The settings that the run began with, whatever became of their file.

        Raises StoreError where that is damaged and nothing else in the run says what it was.
        """
        path = self.directory / SETTINGS
        values = settings_.of_toml(self.files.text(SETTINGS), path)
        missing = [] if SETTINGS in self.files.seal.texts else sorted(Settings.model_fields.keys() - values.keys())
        if missing:
            raise StoreError(
                f"{path} is damaged: it lacks {len(missing)} settings, {missing[0]} among them, and nothing else in "
                "the run says what they were."
            )
        return settings_.parse(values, source=str(path))

    @property
    def simulated(self) -> bool:
        """Whether the run is a simulation: by its seal, by a checkpoint, or by an event."""
        kept = seals.of(checkpoints.of_run(self.directory / CHECKPOINTS).get("seal"))
        return self.files.seal.simulated or kept.simulated or any(event["event"] == "engine" for event in self.events())

    @property
    def damage(self) -> str:
        """Why the run is damaged: the first of its files that is not what it was; "" where all are. Nothing is written.

        `fl resume` heals most of it. Arrays are not looked at.
        """
        try:
            faults = [detail for _, detail in self.files.faults()]
            if faults or (detail := self._fault_of_log()):
                return faults[0] if faults else detail
            _ = self.settings
            parent = self.directory / CHECKPOINTS
            for number in checkpoints.numbers(parent)[-1:]:
                checkpoints.read_manifest(parent / f"{number:04d}")
        except ParterreError as error:
            return str(error)
        return ""

    def append(self, event: Mapping[str, Any]) -> Event:
        """Append an event, with its "time"; return it as it was written."""
        stamped = events.stamp(event)
        self.patiently(lambda: events.append(self.directory / EVENTS, stamped))
        return stamped

    def patiently(self, write: Callable[[], T]) -> T:
        """Return what `write` returns, once there is room for it on the disk; a wait is noted in the log after it."""
        result, seconds = self.patience.wait(write)
        if seconds:
            self.append(paused("the disk was full", seconds))
        return result

    def commit(self, checkpoint: Checkpoint, event: Mapping[str, Any]) -> Event:
        """Make a round last: checkpoint first, then its event, then remove old checkpoints; return the event.

        The event stands in the checkpoint's manifest too, so that a crash between the two loses nothing. Raises
        StoreError where the disk refuses; nothing half-written stays then, and the checkpoint before stands.
        """
        parent = self.directory / CHECKPOINTS
        stamped = events.stamp(event)
        kept = {**self.files.of_run(), "log": self._mark.now(checkpoint.round)}
        self.patiently(lambda: checkpoints.write(parent, checkpoint, stamped, run=kept))
        self._reported.discard(checkpoint.round)
        self.patiently(lambda: checkpoints.note(parent, stamped))
        self.patiently(lambda: events.append(self.directory / EVENTS, stamped))
        self._retention.prune(checkpoint.round, stamped)
        return stamped

    def keep_clients(self, clients: Mapping[str, Any]) -> None:
        """Write what is known of each client for others to read; resume takes it from the checkpoint."""
        self.patiently(lambda: self._write_clients(json.dumps(clients, indent=1).encode()))

    def latest(self) -> Checkpoint | None:
        """Return the newest checkpoint that is whole; None where there is none.

        Each damaged one before it is logged, and the process that holds the lock also appends a "damaged" event.
        """
        parent = self.directory / CHECKPOINTS
        for number in reversed(checkpoints.numbers(parent)):
            try:
                return checkpoints.read(parent / f"{number:04d}")[0]
            except StoreError as error:
                self._damaged(number, str(error))
        return None

    def best(self) -> Checkpoint | None:
        """Return the checkpoint of the best round by `keep_best`; None where no round has that metric.

        One that is damaged is passed over as by `latest`, for the best of the others.
        """
        parent = self.directory / CHECKPOINTS
        whole = [number for number in checkpoints.numbers(parent) if self._committed(number) is not None]
        best = self._retention.best(max(whole, default=0))
        if best is None:
            return None
        try:
            return checkpoints.read(parent / f"{best:04d}")[0]
        except StoreError as error:
            raise StoreError(f"the checkpoint of the best round, {best}, is damaged: {error}") from error

    def reconcile(self) -> list[Event]:
        """Put back what was lost of the run's small files and of its log, from the seal and the checkpoints' manifests.

        Return the events that say so, and the round events that a crash kept out of the log.
        """
        healed = self.heal()
        newest = self.latest()
        known = {(event.get("round"), event.get("time")) for event in self.events() if event["event"] == "round"}
        missing = []
        for number in checkpoints.numbers(self.directory / CHECKPOINTS):
            if newest is not None and number <= newest.round and (event := self._committed(number)) is not None:
                missing += [event] if (event.get("round"), event["time"]) not in known else []
        for event in missing:
            self.patiently(partial(events.append, self.directory / EVENTS, event))
        return healed + missing

    def heal(self) -> list[Event]:
        """Put back small files that were lost or changed, and the log where it was; return an event for each.

        Whoever calls it holds the lock. Raises StoreError where something is damaged that nothing else says.
        """
        _ = self.settings
        mended = self.patiently(self.files.put_back)
        if detail := self._fault_of_log():
            mended.append((EVENTS, detail))
            self.patiently(self._rebuild_log)
        return [self.append({"event": "damaged", "file": name, "detail": detail}) for name, detail in mended]

    def events(self) -> list[Event]:
        """Return all events so far, in the order they were appended."""
        return events.read(self.directory / EVENTS)

    def each_event(self) -> Iterator[Event]:
        """Yield all events so far, one by one."""
        return events.each(self.directory / EVENTS)

    def outline(self) -> Outline:
        """Return what the two ends of the log say, however long it is."""
        return outlines.of(self.directory / EVENTS)

    def rounds(self) -> list[Event]:
        """Return the "round" events, the last one for each number, in order of the number."""
        return events.rounds(self.events())

    def follow(self, stop: Callable[[], bool], *, skip: int = 0, last: Collection[str] = LAST) -> Iterator[Event]:
        """Yield events as they are appended, but the first `skip`, until one of `last` came or `stop()` is true."""
        return events.follow(self.directory / EVENTS, stop, skip=skip, last=last)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the right to write. Raises HeldError where another holds it for longer than `lock_seconds`."""
        path = self.directory / LOCK
        with whole_writes.plainly(f"lock {path}"):
            file = os.fdopen(os.open(path, LOCKING, 0o666), "a+")
        with file:
            if not _acquire(file, self.lock_seconds):
                file.seek(0)
                raise HeldError(
                    f"run {self.name} is being written by another process (pid {file.read().strip() or 'unknown'}). "
                    "Wait for it to end, or stop it."
                )
            with suppress(OSError):  # a full disk: who holds the lock is a courtesy
                file.truncate(0)
                os.pwrite(file.fileno(), str(os.getpid()).encode(), 0)
            self._locked = True
            try:
                yield
            finally:
                self._locked = False

    @property
    def status(self) -> Status:
        """What became of the run: its last word, or else whether a process still writes it."""
        return self.status_after(self.outline().last)

    def status_after(self, last: Event) -> Status:
        """What became of the run, from the newest event of its outline."""
        if last.get("event") in events.LAST:
            return ENDINGS[last["event"]]
        return "running" if self._locked or self.is_locked() else "interrupted"

    def is_locked(self) -> bool:
        """Say whether a process holds the right to write."""
        path = self.directory / LOCK
        if not path.is_file():
            return False
        with whole_writes.plainly(f"read {path}"), path.open("r") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    @cached_property
    def _retention(self) -> Retention:
        settings = self.settings
        return Retention(self.directory / CHECKPOINTS, keep=settings.keep, measure=settings.measure_kept())

    def seal_log(self) -> None:
        """Seal the log as it is now."""
        newest = max(checkpoints.numbers(self.directory / CHECKPOINTS), default=0)
        self.files.keep_mark(self._mark.now(newest))

    def _fault_of_log(self) -> str:
        kept = checkpoints.of_run(self.directory / CHECKPOINTS)
        marks = log_marks.counting(str(kept.get("log", "")), self.files.seal.log)
        return lost_events.fault(self.directory / EVENTS, marks, kept.get("event"))

    def _rebuild_log(self) -> None:
        """Write the log anew: what can be read of it, with each round as its manifest has it."""
        parent, path = self.directory / CHECKPOINTS, self.directory / EVENTS
        committed = [event for number in checkpoints.numbers(parent) if (event := self._committed(number)) is not None]
        wanted = lost_events.rebuilt(self.events(), [*checkpoints.noted(parent), *committed])
        with whole_writes.plainly(f"write {path}"):
            whole_writes.replace(path, lost_events.lines(wanted))
        self._mark = LogMark(path)
        self.seal_log()

    def _write_clients(self, content: bytes) -> None:
        with whole_writes.plainly(f"write {self.directory / CLIENTS}"):
            whole_writes.replace(self.directory / CLIENTS, content)

    def _committed(self, number: int) -> Event | None:
        try:
            event: Event = checkpoints.read_manifest(self.directory / CHECKPOINTS / f"{number:04d}")["event"]
        except StoreError as error:
            self._damaged(number, str(error))
            return None
        return event

    def _damaged(self, number: int, detail: str) -> None:
        if number in self._reported:
            return
        self._reported.add(number)
        log.warning("the checkpoint of round %d is passed over: %s", number, detail)
        if self._locked:
            self.append({"event": "damaged", "round": number, "detail": detail})


def new_name(settings: Settings) -> str:
    """Return a name for a new run: the one that was asked for, or when, what and how."""
    if settings.name:
        return settings.name
    what = short_name(settings.task)
    how = settings.strategy.rpartition(":")[2].lower()
    return f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{what}-{how}-{os.getpid()}"


def listing(store: Path) -> list[Run]:
    """Return the runs in a store's directory, by name. Their settings are read only when asked for."""
    if not store.is_dir():
        return []
    return [Run(entry) for entry in sorted(store.iterdir()) if holds(entry)]


def holds(directory: Path) -> bool:
    """Say whether a directory holds a run, even one that lost its settings."""
    parent = directory / CHECKPOINTS
    manifests = (parent / f"{number:04d}" / checkpoints.MANIFEST for number in checkpoints.numbers(parent))
    return any(path.is_file() for path in (directory / SETTINGS, directory / seals.FILE, *manifests))


def _acquire(file: IO[str], seconds: float) -> bool:
    patience = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > patience:
                return False
            time.sleep(LOCK_SECONDS / 20)
        else:
            return True
