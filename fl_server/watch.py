"""Every run of a store at once: the events that were appended since the last look, read from where that one ended."""

from collections.abc import Iterator
from pathlib import Path

from fl_server import events
from fl_server.events import Event
from fl_server.runs import EVENTS


class Watch:
    """Looks at a store. With `skip_past`, what is there already is passed over."""

    def __init__(self, store: Path, *, skip_past: bool = False) -> None:
        self._store = store
        self._offsets: dict[Path, int] = {}
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
                found, self._offsets[path] = events.read_from(path, offset)
                for event in found:
                    yield path.parent.name, event


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
