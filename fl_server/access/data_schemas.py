"""What clients call their data: noted in the server's home when they join, read by its runs before a first round."""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

from fl_common.tasks.client_data import data_names
from fl_common.tasks.client_data.data_names import Schema
from fl_server.store.disk import whole_writes

FOLDER = "schemas"
MOST_WAITING = 10_000  # clients that have told, and not joined yet


class Schemas:
    """A file for each node, named by its number, in a folder of the server's home. The SuperLink writes, runs read."""

    def __init__(self, home: Path) -> None:
        self._folder = home / FOLDER
        self._lock = threading.Lock()
        self._waiting: OrderedDict[str, str] = OrderedDict()  # by the id of a client's key
        self._read: dict[str, tuple[tuple[int, int], Schema | None]] = {}

    def expect(self, client: str, text: str) -> None:
        """Take what a client tells just before it joins. Raises ValueError where it is no schema."""
        told = data_names.parse(text).text()
        with self._lock:
            self._waiting[client] = told
            self._waiting.move_to_end(client)
            while len(self._waiting) > MOST_WAITING:
                self._waiting.popitem(last=False)

    def settle(self, client: str, node: int) -> None:
        """Note what a client told for the node that it now is; nothing, where it told nothing. Raises StoreError."""
        with self._lock:
            told = self._waiting.pop(client, None)
        path = self._folder / str(node)
        with whole_writes.plainly(f"note what a client's data are called in {self._folder}"):
            if told is None:
                path.unlink(missing_ok=True)
                return
            self._folder.mkdir(mode=0o700, exist_ok=True)
            whole_writes.replace(path, told.encode())

    def drop(self, node: int) -> None:
        """Forget what was told for a node. Raises StoreError."""
        with whole_writes.plainly(f"forget what a client's data are called in {self._folder}"):
            (self._folder / str(node)).unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget all: no node is there when a server starts, and each tells again as it joins. Raises StoreError."""
        with whole_writes.plainly(f"forget what earlier clients' data are called in {self._folder}"):
            for path in self._folder.iterdir() if self._folder.is_dir() else ():
                path.unlink(missing_ok=True)

    def known(self) -> Mapping[int, Schema]:
        """Return {node: schema} of every node that told one. A file is read again when it has changed."""
        if not self._folder.is_dir():
            return {}
        names = [path.name for path in self._folder.iterdir() if path.name.isdecimal()]
        self._read = {name: self._looked_at(name) for name in names}
        return {int(name): found for name, (_, found) in self._read.items() if found is not None}

    def _looked_at(self, name: str) -> tuple[tuple[int, int], Schema | None]:
        path = self._folder / name
        try:
            mark = ((stat := path.stat()).st_mtime_ns, stat.st_ino)
            before = self._read.get(name)
            if before is not None and before[0] == mark:
                return before
            return mark, data_names.parse(path.read_text())
        except (OSError, ValueError):  # it is gone, or damaged: the client tells again when it joins again
            return (0, 0), None
