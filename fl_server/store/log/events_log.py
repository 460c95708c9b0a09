"""The log of a run: one JSON object a line, only ever appended to; read by displays, plots, resume and the gateway.

docs/reference/events.md describes every event.
"""

import json
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fl_common.trust.untrusted_text import clean
from fl_server.store.disk.whole_writes import plainly

Event = dict[str, Any]

LAST = ("finished", "failed", "stopped")
POLL_SECONDS = 0.05
LONGEST = 10_000  # characters of one text
LONGEST_LINE = 8 << 20  # bytes of one event; a longer line is none
OF_LINES = ("error",)  # whose text may have several lines: our own


def stamp(event: Mapping[str, Any]) -> Event:
    """Return the event as strict JSON holds it (NaN and infinities as null), with "time": ISO 8601, UTC.

    Its texts are clean, as fl_common.trust.untrusted_text has it: displays, logs and plots show them as they are.
    """
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    plain: Event = _plain(event)
    return {"event": plain["event"], "time": now} | plain


def append(path: Path, event: Event) -> None:
    """Append one line. It is there as a whole, or StoreError is raised and the log is as it was."""
    line = json.dumps(event, allow_nan=False).encode() + b"\n"
    with plainly(f"write to {path}"), path.open("ab+", buffering=0) as file:
        end = file.seek(0, 2)
        if end:
            file.seek(end - 1)
            line = line if file.read(1) == b"\n" else b"\n" + line
        try:
            while line:
                line = line[file.write(line) :]
        except OSError:
            file.truncate(end)
            raise


def read(path: Path) -> list[Event]:
    """Return the events so far. A line that a crash tore, the last one or one before a resume, is left out."""
    return list(each(path))


def each(path: Path) -> Iterator[Event]:
    """Yield the events that `read` returns, one by one: the log is never held as a whole."""
    if not path.is_file():
        return
    for line in pieces(path):
        if line.endswith(b"\n") and (event := parse(line)) is not None:
            yield event


def pieces(path: Path, offset: int = 0) -> Iterator[bytes]:
    """Yield the lines after byte `offset`; of one that is longer than LONGEST_LINE its beginning, without a line break.

    A last line that a crash tore has none either. No more than LONGEST_LINE bytes are held.
    """
    with plainly(f"read {path}"), path.open("rb") as file:
        file.seek(offset)
        whole = True  # whether a line begins here
        while line := file.readline(LONGEST_LINE):
            if whole:
                yield line
            whole = line.endswith(b"\n")


def rounds(events: Iterable[Event]) -> list[Event]:
    """Return the "round" events, the last one for each number, in order of the number."""
    last = {event["round"]: event for event in events if event["event"] == "round"}
    return [last[number] for number in sorted(last)]


def follow(path: Path, stop: Callable[[], bool], *, skip: int = 0, last: Collection[str] = LAST) -> Iterator[Event]:
    """Yield events as they are appended, leaving out the first `skip`; end after one of `last`, or when `stop()`.

    A "finished" or "failed" that is followed by more (the run was resumed) does not end it.
    """
    seen = offset = 0
    while True:
        stopping = stop()
        fresh, offset = read_from(path, offset)
        for event in fresh:
            seen += 1
            if seen > skip:
                yield event
        over = bool(fresh) and seen > skip and fresh[-1].get("event") in last
        if over or stopping:
            return
        time.sleep(POLL_SECONDS)


def read_from(path: Path, offset: int) -> tuple[list[Event], int]:
    """Return the events after byte `offset`, and the offset to go on from: a line that is not whole yet comes later."""
    if not path.is_file():
        return [], offset
    with plainly(f"read {path}"), path.open("rb") as file:
        file.seek(offset)
        *lines, rest = (content := file.read()).split(b"\n")
    events = [event for line in lines if (event := parse(line)) is not None]
    return events, offset + len(content) - len(rest)


def parse(line: bytes | str) -> Event | None:
    """Return the event in a line of a log, whoever wrote it, with clean texts; None where there is none."""
    if len(line) > LONGEST_LINE:
        return None
    try:
        event = json.loads(line)
        return _plain(event) if _is_event(event) else None
    except (ValueError, RecursionError):
        return None


def _is_event(event: Any) -> bool:
    """Say whether an object is an event; a "round" has a number and a time, by which it is known."""
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        return False
    return event["event"] != "round" or type(event.get("round")) is int


def _plain(value: Any, *, lines: bool = False) -> Any:
    if isinstance(value, str):
        return clean(value, most=LONGEST, lines=lines)
    if hasattr(value, "tolist"):  # NumPy's, without importing it for every command
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {clean(key): _plain(item, lines=key in OF_LINES) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return clean(value, most=LONGEST) if isinstance(value, Path) else value
