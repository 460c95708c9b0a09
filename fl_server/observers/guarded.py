"""An observer whose errors end itself and nothing else: whatever fails in a display or a log, the run goes on."""

import logging
from collections.abc import Mapping
from typing import Any

from fl_common.trust.untrusted_text import clean
from fl_server.observers import Observer

log = logging.getLogger(__name__)


class Guarded:
    """Hands events on to `observer` until that raises; then it is closed, and told no more."""

    def __init__(self, observer: Observer) -> None:
        self._observer: Observer | None = observer

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Hand an event on."""
        if self._observer is None:
            return
        try:
            self._observer.on_event(event)
        except Exception as error:  # noqa: BLE001
            self._give_up(self._observer, error)

    def close(self) -> None:
        """Close the observer, where it still observes."""
        observer, self._observer = self._observer, None
        if observer is not None:
            try:
                observer.close()
            except Exception as error:  # noqa: BLE001
                log.warning("%s did not end well: %s", *_named(observer, error))

    def _give_up(self, observer: Observer, error: Exception) -> None:
        log.warning("%s shows no more of this run, which goes on: %s", *_named(observer, error))
        self.close()


def _named(observer: Observer, error: Exception) -> tuple[str, str]:
    return type(observer).__name__, clean(f"{type(error).__name__}: {error}")
