"""The run store: a run is a directory of settings, events and checkpoints, and that directory is the truth about it.

The round loop writes it; resume, displays, plots, export and the gateway read it. It knows no TensorFlow.
"""

import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import IO, Any, Literal, Self, TypeVar

import tomli_w

from fl_common import measure
from fl_common import settings as settings_
from fl_common.errors import StoreError
from fl_common.settings import Settings
from fl_server import checkpoints, disk, events
from fl_server.checkpoints import Checkpoint
from fl_server.events import LAST, Event
from fl_server.patience import Patience, paused
from fl_server.retention import Retention

__all__ = ["Checkpoint", "Run", "Status", "listing", "new_name"]

log = logging.getLogger(__name__)

T = TypeVar("T")
Status = Literal["running", "finished", "failed", "interrupted"]

SETTINGS, EVENTS, CHECKPOINTS, LOCK = "settings.toml", "events.jsonl", "checkpoints", ".lock"
CLIENTS = "clients.json"
LAST_WORDS: dict[str, Status] = {"finished": "finished", "failed": "failed", "stopped": "interrupted"}
LOCK_SECONDS = 0.5  # a reader that asks for the status holds the lock for an instant


class Run:
    """One run. Any number of processes may read it; the one that holds `lock()` writes it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lock_seconds = LOCK_SECONDS
        self.patience = Patience()
        self._locked = False
        self._reported: set[int] = set()

    @classmethod
    def create(cls, directory: Path, settings: Settings) -> Self:
        """Begin a run in `directory`, made where missing. Raises StoreError where it holds a run or is not writable."""
        with disk.plainly(f"begin a run in {directory}"):
            directory.mkdir(parents=True, exist_ok=True)
        run = cls(directory)
        with run.lock(), disk.plainly(f"begin a run in {directory}"):
            if (directory / SETTINGS).exists():
                raise StoreError(
                    f"{directory} already holds a run. Name another directory with --out, or continue this one "
                    f"with `fl resume {directory}`."
                )
            disk.replace(directory / SETTINGS, tomli_w.dumps(settings.model_dump()).encode())
        return run

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open a run that exists. Raises StoreError where there is none, SettingsError where its settings are bad."""
        if not (directory / SETTINGS).is_file():
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
        """The settings that the run began with."""
        return settings_.load(toml=self.directory / SETTINGS, environment={})

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
        self.patiently(lambda: checkpoints.write(parent, checkpoint, stamped))
        self._reported.discard(checkpoint.round)
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
        """Append the round events that a crash kept out of the log, from the checkpoints' manifests; return them."""
        newest = self.latest()
        known = {(event.get("round"), event.get("time")) for event in self.events() if event["event"] == "round"}
        missing = []
        for number in checkpoints.numbers(self.directory / CHECKPOINTS):
            if newest is not None and number <= newest.round and (event := self._committed(number)) is not None:
                missing += [event] if (event.get("round"), event["time"]) not in known else []
        for event in missing:
            self.patiently(partial(events.append, self.directory / EVENTS, event))
        return missing

    def events(self) -> list[Event]:
        """Return all events so far, in the order they were appended."""
        return events.read(self.directory / EVENTS)

    def rounds(self) -> list[Event]:
        """Return the "round" events, the last one for each number, in order of the number."""
        return events.rounds(self.events())

    def follow(self, stop: Callable[[], bool], *, skip: int = 0, last: Collection[str] = LAST) -> Iterator[Event]:
        """Yield events as they are appended, but the first `skip`, until one of `last` came or `stop()` is true."""
        return events.follow(self.directory / EVENTS, stop, skip=skip, last=last)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the right to write. Raises StoreError where another holds it for longer than `lock_seconds`."""
        path = self.directory / LOCK
        with disk.plainly(f"lock {path}"):
            file = path.open("a+")
        with file:
            if not _acquire(file, self.lock_seconds):
                file.seek(0)
                raise StoreError(
                    f"run {self.name} is being written by another process (pid {file.read().strip() or 'unknown'}). "
                    "Wait for it to end, or stop it."
                )
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            self._locked = True
            try:
                yield
            finally:
                self._locked = False

    @property
    def status(self) -> Status:
        """What became of the run: its last word, or else whether a process still writes it."""
        course = [event["event"] for event in self.events() if event["event"] in ("started", "round", *events.LAST)]
        if course and course[-1] in events.LAST:
            return LAST_WORDS[course[-1]]
        return "running" if self._locked or self.is_locked() else "interrupted"

    def is_locked(self) -> bool:
        """Say whether a process holds the right to write."""
        path = self.directory / LOCK
        if not path.exists():
            return False
        with disk.plainly(f"read {path}"), path.open("r") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    @cached_property
    def _retention(self) -> Retention:
        measure_ = measure.parse(self.settings.keep_best)
        return Retention(self.directory / CHECKPOINTS, keep=self.settings.keep, measure=measure_)

    def _write_clients(self, content: bytes) -> None:
        with disk.plainly(f"write {self.directory / CLIENTS}"):
            disk.replace(self.directory / CLIENTS, content)

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
    """Return a name for a new run: when, what and how."""
    what = settings.task.removesuffix(".py").replace("/", ".").rpartition(".")[2]
    how = settings.strategy.rpartition(":")[2].lower()
    return f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{what}-{how}-{os.getpid()}"


def listing(store: Path) -> list[Run]:
    """Return the runs in a store's directory, by name. Their settings are read only when asked for."""
    if not store.is_dir():
        return []
    return [Run(entry) for entry in sorted(store.iterdir()) if (entry / SETTINGS).is_file()]


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
