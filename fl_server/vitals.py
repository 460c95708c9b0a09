"""What a server says of itself while it runs: its pulse for `fl health`, and its runs' events for who reads its log."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from fl_common.pulse import PulseFile
from fl_server.events import Event
from fl_server.watch import Watch

log = logging.getLogger(__name__)

BEAT_SECONDS = 2.0
LOOK_SECONDS = 0.5


class Vitals:
    """Call `tick` a few times a second. `tell` is given each new event with the name of its run."""

    def __init__(
        self,
        store: Path,
        pulse: PulseFile,
        *,
        tell: Callable[[str, Event], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self._watch = Watch(store, skip_past=True)
        self._pulse = pulse
        self._tell = tell
        self._clock = clock
        self._beaten = self._looked = -BEAT_SECONDS
        self._said = ("", "")
        self._trouble = ""

    def tick(self, state: str, detail: str) -> None:
        """Say that the server is in `state`; and what is new in its runs."""
        now = self._clock()
        if now - self._beaten >= BEAT_SECONDS or self._said != (state, detail):
            self._beaten, self._said = now, (state, detail)
            error = self._pulse.beat(state, detail)
            if error and error != self._trouble:
                log.warning("health probes will fail: %s", error)
            self._trouble = error
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            for run, event in self._watch.fresh():
                self._tell(run, event)
