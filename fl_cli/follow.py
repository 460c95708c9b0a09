"""Following a run: from its directory, or from the server's log, its events go to the display and an exit code."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fl_cli.display import Display
from fl_common.errors import ParterreError
from fl_server.events import LAST

Event = Mapping[str, Any]
MARK = '{"event":'  # how an event begins in a server's log


class RunFailed(ParterreError):  # noqa: N818
    """The run ended without finishing. The message is the server's own."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def show(events: Iterable[Event], display: Display) -> Event | None:
    """Show events as they come and return the last of them that ends a run. Raises RunFailed for "failed"."""
    final: Event | None = None
    with display:
        for event in events:
            display.on_event(event)
            if event["event"] in LAST:
                final = event
    if final is not None and final["event"] == "failed":
        raise RunFailed(str(final["error"]), int(final.get("exit_code", 1)))
    if final is not None and final["event"] == "stopped":
        raise RunFailed("the run was stopped; its rounds so far are kept, and it can go on from there")
    return final


def from_log(lines: Iterable[str]) -> Iterator[Event]:
    """Yield the events among the lines of a server's log."""
    for line in lines:
        if line.startswith(MARK):
            try:
                yield json.loads(line)
            except ValueError:
                continue
