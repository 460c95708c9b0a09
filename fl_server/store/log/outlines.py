"""The outline of a run's log, read from its two ends: what a listing needs of a log of any size."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fl_server.store import waits
from fl_server.store.disk.whole_writes import plainly
from fl_server.store.log import events_log
from fl_server.store.log.events_log import LAST, LONGEST_LINE, Event

BLOCK = 1 << 16
TAIL = 1 << 18  # bytes from the end within which the highest round is looked for, not the newest
COURSE = ("started", "round", *LAST)
TELLING = re.compile(rb'"event"\s*:\s*"(?:' + b"|".join(kind.encode() for kind in COURSE) + rb')"')


@dataclass(frozen=True)
class Outline:
    """The first event; the newest that says how the run stands; the last round; what is waited for ("": nothing).

    Events that are missing are empty.
    """

    first: Event = field(default_factory=dict)
    last: Event = field(default_factory=dict)
    round: Event = field(default_factory=dict)
    waits_for: str = ""


def of(path: Path) -> Outline:
    """Return the outline of a log; an empty one where there is no log."""
    first: Event = next(events_log.each(path), {})
    newest: Event = {}
    rounds: list[Event] = []
    waits_for: str | None = None
    for line, taken in backwards(path):
        if newest and rounds and waits_for is not None and taken > TAIL:
            break
        if waits_for is not None and not TELLING.search(line):
            continue
        if (event := events_log.parse(line)) is None:
            continue
        if waits_for is None and event["event"] not in waits.ELSEWHERE:
            waits_for = waits.after(event)
        if event["event"] in COURSE:
            newest = newest or event
            rounds += [event] if event["event"] == "round" else []
    # of two events of one round, the newer stands before the older
    return Outline(first, newest, max(rounds, key=lambda event: int(event["round"]), default={}), waits_for or "")


def backwards(path: Path) -> Iterator[tuple[bytes, int]]:
    """Yield the whole lines of a log, the last one first, each with the bytes that were read so far.

    One that is longer than LONGEST_LINE is left out, and never held.
    """
    if not path.is_file():
        return
    with plainly(f"read {path}"), path.open("rb") as file:
        place = end = file.seek(0, 2)
        pieces: list[bytes] = []  # of the line that is being put together, the last one first
        held, torn = 0, True
        while place:
            step = min(BLOCK, place)
            place -= step
            file.seek(place)
            *lines, last = file.read(step).split(b"\n")
            for number, piece in enumerate((last, *reversed(lines))):
                if number:  # a line break lies between it and what is held
                    if not torn and held <= LONGEST_LINE:
                        yield b"".join(reversed(pieces)), end - place
                    pieces, held, torn = [], 0, False
                held += len(piece)
                pieces = [*pieces, piece] if held <= LONGEST_LINE else []
        if not torn and held <= LONGEST_LINE:
            yield b"".join(reversed(pieces)), end - place
