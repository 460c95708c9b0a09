"""What a server says of itself while it runs: its pulse for `fl health`, and its runs' events for who reads its log."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from fl_common.processes.health_file import HealthFile
from fl_common.trust.untrusted_text import clean
from fl_server.processes.repeated_warnings import Repeats
from fl_server.store import waits
from fl_server.store.log.events_log import Event
from fl_server.store.log.new_events import NewEvents

log = logging.getLogger(__name__)

BEAT_SECONDS = 2.0
LOOK_SECONDS = 0.5


class ServerHealth:
    """Call `tick` a few times a second. `tell` is given each new event with the name of its run."""

    def __init__(
        self,
        store: Path,
        pulse: HealthFile,
        *,
        tell: Callable[[str, Event], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self._watch = NewEvents(store, skip_past=True)
        self._pulse = pulse
        self._tell = tell
        self._clock = clock
        self._beaten = self._looked = -BEAT_SECONDS
        self._said = ("", "")
        self._untold = ""
        self._repeats = Repeats(clock)
        self._waits: dict[str, str] = {}  # run -> what it waits for

    def tick(self, state: str, detail: str) -> None:
        """Say that the server is in `state`, with what its runs wait for; and what is new in these."""
        now = self._clock()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            for run, event in self._watch.fresh():
                self._waits[run] = waits.after(event, self._waits.get(run, ""))
                self._say(run, event)
        detail = "; ".join([detail, *(f"run {clean(run)}: {text}" for run, text in self._waits.items() if text)])
        if now - self._beaten >= BEAT_SECONDS or self._said != (state, detail):
            self._beaten, self._said = now, (state, detail)
            error = self._pulse.beat(state, detail)
            if error and not self._repeats.are(error):
                log.warning("health probes will fail: %s", error)

    def _say(self, run: str, event: Event) -> None:
        """Tell an event; a display that fails, or an event that cannot be put in words, is no end of a server."""
        try:
            self._tell(run, event)
        except Exception as error:  # noqa: BLE001
            if (why := clean(f"{type(error).__name__}: {error}")) != self._untold:
                log.warning("events of run %s are not shown: %s", clean(run), why)
            self._untold = why
