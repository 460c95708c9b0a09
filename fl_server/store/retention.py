"""Which checkpoints of a run stay: the newest few, and the one of its best round."""

from pathlib import Path

from fl_common.errors import StoreError
from fl_common.settings.best_metric import Measure
from fl_server.store import checkpoints
from fl_server.store.log.events_log import Event


class Retention:
    """Prunes a run's checkpoints after each commit. The manifests are its memory, so a resumed run knows its best."""

    def __init__(self, parent: Path, *, keep: int, measure: Measure | None) -> None:
        self._parent = parent
        self._keep = keep
        self._measure = measure
        self._values: dict[int, float | None] = {}  # of rounds whose manifest was read, or that were just committed

    def prune(self, newest: int, event: Event) -> None:
        """Remove what is neither among the newest nor the best up to `newest`, whose event is given."""
        if self._measure is not None:
            self._values[newest] = self._measure.of(event)
        best = self.best(newest)
        checkpoints.prune(self._parent, newest, self._keep, also=() if best is None else (best,))

    def best(self, newest: int) -> int | None:
        """Return the best round up to `newest` that has a checkpoint, the earlier of two alike; None without one."""
        values = {number: self._value(number) for number in checkpoints.numbers(self._parent) if number <= newest}
        self._values = values
        known = [(value, number) for number, value in values.items() if value is not None]
        return min(known)[1] if known else None

    def _value(self, number: int) -> float | None:
        if self._measure is None or number in self._values:
            return self._values.get(number)
        try:
            return self._measure.of(checkpoints.read_manifest(self._parent / f"{number:04d}")["event"])
        except StoreError:
            return None
