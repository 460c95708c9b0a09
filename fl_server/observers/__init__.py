"""Observers of a run: each is handed every event, in order, by the round loop; one file each."""

from collections.abc import Mapping
from typing import Any, Protocol


class Observer(Protocol):
    """Takes the events of one run, as docs/reference/events.md describes them."""

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Take one event. What it raises ends this observer, and never the run (guarded.py)."""

    def close(self) -> None:
        """Finish what was begun; called once, also when the run failed."""
