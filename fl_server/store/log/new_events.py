"""Every run of a store at once: the events that were appended since the last look, read from where that one ended."""

import logging
from collections.abc import Iterator
from pathlib import Path

from fl_common.errors import StoreError
from fl_server.store.log import events_log
from fl_server.store.log.events_log import Event
from fl_server.store.runs import EVENTS

log = logging.getLogger(__name__)


class NewEvents:
    """Looks at a store. With `skip_past`, what is there already is passed over."""

    def __init__(self, store: Path, *, skip_past: bool = False) -> None:
        self._store = store
        self._offsets: dict[Path, int] = {}
        self._unread: set[Path] = set()
        if skip_past:
            for _ in self.fresh():
                pass

    def fresh(self) -> Iterator[tuple[str, Event]]:
        """Yield (name of the run, event) of what is new, run after run, each run's in the order of its file."""
        for path in sorted(self._store.glob(f"*/{EVENTS}")):
            offset = self._offsets.get(path, 0)
            size = _size(path)
            if size < offset:  # another file under the same name: the run was removed and begun anew
                offset = 0
            if size > offset:
                for event in self._read(path, offset):
                    yield path.parent.name, event

    def _read(self, path: Path, offset: int) -> list[Event]:
        """Return what is new in a log; nothing of one that cannot be read: it hides no other run."""
        try:
            found, self._offsets[path] = events_log.read_from(path, offset)
        except StoreError as error:
            if path not in self._unread:
                log.warning("a run's events are not shown: %s", error)
            self._unread.add(path)
            return []
        return found


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
