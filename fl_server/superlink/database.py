"""What Flower's SuperLink knows about runs, in its database file: how they stand, and putting one back into the queue.

Flower ends a run whose ServerApp died. Here the run is queued again under the same number, so that whoever follows it,
`fl run`, `flwr log` or `flwr ls`, goes on following. The file is SQLite in WAL mode: it may be written while the
SuperLink runs, and while it does not. docs/decisions/0011 says why this is SQL and not one of Flower's calls.
"""

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from fl_common.errors import StoreError
from fl_server.processes.steady_clock import Steady
from fl_server.store.disk.whole_writes import away, in_a_line, is_damage, told

BUSY_SECONDS = 5.0
RENEWED_SECONDS = 300.0
MOST_LOOKED_AT = 256 << 20  # bytes: a second
RESUMED = "a run that was not finished goes on with `fl run --resume NAME` (`fl runs` names them)"
COMPLETED, STOPPED, FAILED = "completed", "stopped", "failed"  # Flower's sub-statuses of a run that has ended
LOST = (
    "No heartbeat received from the task",
    "Task failed with unknown error.",
)  # its details where it just went silent
RPC = "of RPC that terminated"  # how gRPC describes its errors
RAISED = "ServerApp failed with exception"  # how Flower's details begin where the ServerApp's own code raised

_UNSIGNED = 2**64
_KNOWN = "SELECT count(*) FROM sqlite_master WHERE name = 'task'"
_SELECT = """
    SELECT run.run_id, task.task_id, task.token, task.starting_at, task.finished_at, task.sub_status, task.details
    FROM run JOIN task ON task.task_id = run.primary_task_id
"""
_QUEUE = """
    UPDATE task SET token = NULL, active_until = NULL, starting_at = NULL, running_at = NULL, finished_at = NULL,
        sub_status = '', details = '' WHERE task_id = ?
"""
_RENEW = "UPDATE task SET active_until = ? WHERE token IS NOT NULL AND finished_at IS NULL"
_NEWEST_LINE = "SELECT max(timestamp) FROM task_logs"
_TOLD = "SELECT 1 FROM task_logs WHERE task_id = ? AND instr(log, ?) > 0"
_FINISH = """
    UPDATE task SET token = NULL, active_until = NULL, finished_at = ?, sub_status = ?, details = ? WHERE task_id = ?
"""
# Flower's own keys find the children of an object, and the objects of a run, but not the other way round: without these
# each object that is deleted is looked for in all of both tables.
INDEXES = (
    "CREATE INDEX IF NOT EXISTS parterre_children ON object_children (child_id)",
    "CREATE INDEX IF NOT EXISTS parterre_run_objects ON run_objects (object_id)",
)
_FORGET = (
    "DELETE FROM message_res WHERE run_id = :run",
    "DELETE FROM message_ins WHERE run_id = :run",
    "CREATE TEMP TABLE own (object_id TEXT PRIMARY KEY)",
    """
    INSERT INTO own SELECT object_id FROM run_objects WHERE run_id = :run
        EXCEPT SELECT object_id FROM run_objects WHERE run_id <> :run
    """,
    "CREATE TEMP TABLE fewer (object_id TEXT PRIMARY KEY, times INTEGER)",
    """
    INSERT INTO fewer SELECT child_id, count(*) FROM object_children
        WHERE parent_id IN (SELECT object_id FROM own) GROUP BY child_id
    """,
    """
    UPDATE objects SET ref_count = max(0, ref_count - (
        SELECT times FROM fewer WHERE fewer.object_id = objects.object_id
    )) WHERE object_id IN (SELECT object_id FROM fewer)
    """,
    "DELETE FROM objects WHERE object_id IN (SELECT object_id FROM own)",
    "DELETE FROM run_objects WHERE run_id = :run",
)


@dataclass(frozen=True)
class LinkedRun:
    """A run as Flower knows it. `outcome` is "" until it has ended; `claimed`: a ServerApp was started for it."""

    run_id: int
    task: int
    claimed: bool
    outcome: str
    details: str


def is_lost(details: str) -> bool:
    """Say whether Flower's details of a failed run tell of what is around the run, and not of an error of its own."""
    return details in LOST or RPC in details or details.strip() == f"{RAISED}:"


def in_short(details: str) -> str:
    """Return the details as one line: of an error of gRPC only what the SuperLink said."""
    found = re.search(r'details = "(.*?)["\n]', details)
    return f"its SuperLink failed: {found[1]}" if RPC in details and found else details.strip().split("\n")[0]


class LinkDatabase:
    """The SuperLink's database file. Every method raises StoreError where the file cannot be read or written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._steady: Steady | None = None

    def steady(self) -> Steady:
        """Return the clock of what is written: as the first who asks, later than all that is there."""
        if self._steady is None:
            self._steady = Steady.after(self._latest())
        return self._steady

    def _latest(self) -> float:
        try:
            if not self._path.exists():
                return 0.0
            with self._open() as database:
                known = database.execute(_KNOWN).fetchone()[0]
                return (known and database.execute(_NEWEST_LINE).fetchone()[0]) or 0.0
        except StoreError:  # whoever reads what matters says so
            return 0.0

    def runs(self) -> list[LinkedRun]:
        """Return all runs; none where the SuperLink has never made the file."""
        if not self._path.exists():
            return []
        with self._open() as database:
            known = database.execute(_KNOWN).fetchone()[0]
            return [_linked(row) for row in database.execute(_SELECT)] if known else []

    def examine(self, *, began: bool) -> str:
        """Look at the file before a start; return what is lost where it is missing though runs `began` with it.

        Raises StoreError where it is damaged. What a large one holds inside is not looked at.
        """
        size = self._path.stat().st_size if self._path.exists() else 0
        if 0 < size < MOST_LOOKED_AT:
            with self._open() as database:
                if (found := database.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                    raise sqlite3.DatabaseError(found)
        return f"{self._path} was missing or empty, and is made anew: {RESUMED}" if began and not size else ""

    def run(self, run_id: int) -> LinkedRun | None:
        """Return one run."""
        return next((run for run in self.runs() if run.run_id == run_id), None)

    def named(self, name: str) -> LinkedRun | None:
        """Return the newest run that was submitted under a name."""
        if not self._path.exists():
            return None
        with self._open() as database:
            where = "WHERE json_extract(run.override_config, '$.name') = ? ORDER BY task.pending_at DESC"
            known = database.execute(_KNOWN).fetchone()[0]
            row = database.execute(f"{_SELECT} {where}", (name,)).fetchone() if known else None
        return _linked(row) if row is not None else None

    def settings_of(self, run: LinkedRun) -> dict[str, Any]:
        """Return the settings that a run was submitted with."""
        with self._open() as database:
            query = "SELECT override_config FROM run WHERE run_id = ?"
            return dict(json.loads(database.execute(query, (_signed(run.run_id),)).fetchone()[0]))

    def run_of(self, token: str) -> LinkedRun | None:
        """Return the run whose ServerApp was given this token."""
        with self._open() as database:
            row = database.execute(f"{_SELECT} WHERE task.token = ?", (token,)).fetchone()
        return _linked(row) if row is not None else None

    def queue(self, run: LinkedRun) -> None:
        """Have the run started again. Its ServerApp's token, and what is under way to and from clients, is void."""
        with self._open() as database:
            for statement in (*INDEXES, *_FORGET):
                database.execute(statement, {"run": _signed(run.run_id)})
            database.execute(_QUEUE, (run.task,))

    def renew(self) -> None:
        """Let no claim run out while the SuperLink is away: a ServerApp cannot be heard then, and is still there."""
        if self._path.exists():
            with self._open() as database:
                if database.execute(_KNOWN).fetchone()[0]:
                    until = self.steady().now() + timedelta(seconds=RENEWED_SECONDS)
                    database.execute(_RENEW, (until.isoformat(" "),))

    def finish(self, run: LinkedRun, outcome: str, details: str) -> None:
        """Note that a run has ended, where its ServerApp could not say so."""
        with self._open() as database:
            database.execute(_FINISH, (self.steady().now().isoformat(" "), outcome, details, run.task))

    def tell(self, run: LinkedRun, line: str, *, once: bool = False) -> None:
        """Add a line to the log of a run, which those who follow it read; `once`: unless it is there."""
        with self._open() as database:
            if once and database.execute(_TOLD, (run.task, line)).fetchone() is not None:
                return
            values = (self.steady().timestamp(), run.task, f"{line}\n")
            database.execute("INSERT INTO task_logs (timestamp, task_id, log) VALUES (?, ?, ?)", values)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Open a transaction, which is committed at the end, or undone where an error ends it."""
        try:
            database = sqlite3.connect(self._path, timeout=BUSY_SECONDS)
            try:
                with database:
                    database.execute("PRAGMA foreign_keys = ON")
                    yield database
            finally:
                database.close()
        except sqlite3.Error as error:
            raise StoreError(f"the SuperLink's database {self._path} cannot be used: {self._why(error)}") from error

    def _why(self, error: sqlite3.Error) -> str:
        if not is_damage(error):
            return told(error) or str(error)
        return (
            f"{in_a_line(error)}. Put it back from a backup while the server is stopped. Without one, move it out of "
            f"the way ({away(self._path)}) and start the server: clients join again, and {RESUMED}."
        )


def _linked(row: tuple[Any, ...]) -> LinkedRun:
    run_id, task, token, starting, finished, outcome, details = row
    claimed = token is not None or starting is not None
    return LinkedRun(run_id % _UNSIGNED, task, claimed, outcome if finished is not None else "", details)


def _signed(number: int) -> int:
    return number - _UNSIGNED if number >= _UNSIGNED // 2 else number
