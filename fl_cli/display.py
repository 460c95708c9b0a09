"""What a person, or a program, sees of a run: its events as a live table, as plain lines or as JSON lines.

`fl up`, `fl run` and `fl resume` hand it every event, as it comes.
"""

import json
import sys
import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self, TextIO

from fl_cli.words import DESCRIBE, Event, alike, finished, is_repeated, more_left_out, short_failure

REPLIED = "replied"


class Display(ABC):
    """Shows events; use it as a context manager, so that the terminal is given back whatever happens."""

    @staticmethod
    def for_terminal(
        *, as_json: bool = False, out: TextIO | None = None, unfinished: str = "stopped", began: float | None = None
    ) -> "Display":
        """Return JSON lines where asked for, a live table where `out` (stdout) is a terminal, plain lines otherwise.

        unfinished: what a live table says where it ends before the run does. began: when the command did that runs all
        of the run, on the monotonic clock; by default a run is said to have taken what its rounds took.
        """
        out = out or sys.stdout
        if as_json:
            return JsonLines(out)
        if not out.isatty():
            return PlainLines(out, began=began)
        from fl_cli.live import LiveTable

        return LiveTable.on(out, unfinished=unfinished, began=began)

    @abstractmethod
    def on_event(self, event: Event) -> None:
        """Show one event. Unknown ones are left out."""

    def doing(self, text: str) -> None:  # noqa: B027  a program is told events only
        """Show what is waited for, before there are events."""

    def close(self) -> None:  # noqa: B027  lines need no closing
        """Give the terminal back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class JsonLines(Display):
    """One JSON object a line, exactly the event."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def on_event(self, event: Event) -> None:
        if event.get("event") == REPLIED:  # it is in no log of a run
            return
        self._out.write(json.dumps(event) + "\n")
        self._out.flush()


class PlainLines(Display):
    """One line of words an event, for logs and pipes.

    A rejected reply is shown once another event, or a reply that was not rejected, has come after it: where every
    client makes the same mistake, the run ends with it, and that is told once, by whoever shows the run.
    """

    def __init__(self, out: TextIO, *, began: float | None = None) -> None:
        self._out = out
        self._began = began
        self._rounds: int | None = None
        self._said = self._doing = ""
        self._left_out: Event = {}
        self._more = 0
        self._held = ""

    def on_event(self, event: Event) -> None:
        if event["event"] == REPLIED:
            if int(event.get("replies") or 0) > 1 + self._more:
                self._release()
            return
        if alike(event, self._left_out):
            self._more += 1
            return
        if self._held and is_repeated(self._left_out, event):
            self._held, self._more = "", 0
        self._tell_left_out()
        self._left_out, self._more = event, 0
        self._rounds = event.get("rounds", self._rounds) if event["event"] == "started" else self._rounds
        describe = DESCRIBE.get(event["event"])
        if describe is None:
            return
        text = describe(event)
        if event["event"] == "finished" and self._began is not None:
            text = finished(event, time.monotonic() - self._began)
        if event["event"] == "round" and self._rounds:
            text = text.replace(f"round {event['round']}:", f"round {event['round']}/{self._rounds}:", 1)
        if event["event"] == "failed":
            text = short_failure(event)
        if event["event"] == "rejected":
            self._held = text
        elif text != self._said:  # the same clients are still waited for
            self._say(text)
        self._said = text

    def doing(self, text: str) -> None:
        what = text.partition(":")[0]
        if what != self._doing:  # not each of them, as it comes
            self._say(text)
        self._doing = what

    def close(self) -> None:
        self._tell_left_out()
        self._more = 0

    def _tell_left_out(self) -> None:
        self._release()
        if self._more:
            self._say(more_left_out(self._left_out, self._more))

    def _release(self) -> None:
        if self._held:
            self._say(self._held)
        self._held = ""

    def _say(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()
