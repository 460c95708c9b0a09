"""A log of events that is lost or damaged: how that is seen, and what it is rebuilt from."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from fl_server.store.log import events_log, log_marks
from fl_server.store.log.events_log import LONGEST_LINE, Event

KEYS = ("event", "round", "time")
BEGIN = b'{"event": "'


def fault(path: Path, marks: Sequence[str], newest: Event | None) -> str:
    """Return what is wrong with a log; "" where nothing is.

    marks: with which it begins. newest: the event of the newest round, as its manifest has it; it may be missing yet.
    """
    if not path.is_file():
        return f"{path} is gone" if marks else ""
    if not all(log_marks.stands(path, mark) for mark in marks):
        return f"{path} is damaged: it is not what was written"
    after = events_log.pieces(path, max(map(log_marks.length, marks), default=0))
    broken = next((line for line in after if line.strip() and not _is_of_a_log(line, newest)), None)
    return f"{path} is damaged: {broken[:40]!r} in it is no event of this run" if broken is not None else ""


def rebuilt(found: Iterable[Event], rounds: Iterable[Event]) -> list[Event]:
    """Return the events that a log should have: those found in it, with each round as its manifest has it."""
    known = {(event["round"], event["time"]): event for event in rounds}
    numbers = {number for number, _ in known}
    kept = [event for event in found if event["event"] != "round" or event["round"] not in numbers]
    return sorted([*kept, *known.values()], key=lambda event: str(event.get("time", "")))


def lines(wanted: Iterable[Event]) -> bytes:
    """Return the content of a log with these events."""
    return b"".join(json.dumps(event, allow_nan=False).encode() + b"\n" for event in wanted)


def _is_of_a_log(line: bytes, newest: Event | None) -> bool:
    """Say whether a line is an event, or what a crash left of one. The beginning of one that is too long is neither."""
    if len(line) >= LONGEST_LINE and not line.endswith(b"\n"):
        return False
    if (event := events_log.parse(line)) is not None:
        same = newest is not None and [event.get(key) for key in KEYS] == [newest.get(key) for key in KEYS]
        return not same or event == newest
    return not _reads(line) and (line.startswith(BEGIN) or BEGIN.startswith(line.strip()))


def _reads(line: bytes) -> bool:
    """Say whether a line is JSON, or nested so deep that nothing says whether it is."""
    try:
        json.loads(line)
    except RecursionError:
        return True
    except ValueError:
        return False
    return True
