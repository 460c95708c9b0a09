"""A client's own data: read before it joins, kept until a run has taken them, not read again while they cannot be."""

import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fl_common.data.examples import Examples
from fl_common.errors import ParterreError
from fl_common.settings.schema import Settings
from fl_common.tasks.client_data import files
from fl_common.tasks.client_data.data_names import Schema
from fl_common.tasks.client_data.files import DataOptions, Own
from fl_common.tasks.client_data.tables import Prepare

LOOK_SECONDS = 0.1

Mark = tuple[Any, ...]


class Interrupted(BaseException):
    """The client was told to stop while its data were read: no code of a user's is to catch this."""


class OwnData:
    """A file or folder of this client's own. `stop` is heard while it is read, however long that hangs."""

    def __init__(self, path: str, options: DataOptions, stop: threading.Event | None = None) -> None:
        self.path = Path(path).expanduser()
        self._options = options
        self._stop = stop or threading.Event()
        self._kept: tuple[str, Own] | None = None
        self._refused: tuple[Mark, ParterreError] | None = None
        self.schema = Schema()

    def divided(
        self, settings: Settings, prepare: Prepare | None = None, order: Sequence[str] = ()
    ) -> tuple[Examples, Examples]:
        """Return (train, validation), a table's columns in `order`. Raises ParterreError, Interrupted."""
        return files.divided(self.read(settings.id_column, prepare), settings, order)

    def read(self, id_column: str = "", prepare: Prepare | None = None) -> Own:
        """Return what the file or folder holds. Raises ParterreError, again without a look while it stays as it is."""
        if self._kept is None or self._kept[0] != id_column:
            self._kept = None
            self._refuse_again()
            try:
                own = _heard(
                    lambda: files.read(self.path, self._options, id_column=id_column, prepare=prepare), self._stop
                )
            except ParterreError as error:
                self.refuse(error)
                raise
            self._kept, self.schema = (id_column, own), files.schema_of(own)
        return self._kept[1]

    def release(self) -> None:
        """Let go of what was read: who took it holds it."""
        self._kept = None

    def refuse(self, error: ParterreError) -> None:
        """Raise `error` for these data from now on, until their file changes."""
        for each in (error, error.__cause__, error.__context__):
            if each is not None:
                traceback.clear_frames(each.__traceback__)  # else they keep what was read
        self._refused = (_mark(self.path), error)

    def _refuse_again(self) -> None:
        if self._refused is not None and self._refused[0] == _mark(self.path):
            raise self._refused[1].with_traceback(None)
        self._refused = None


def _mark(path: Path) -> Mark:
    """Return what changes when a file does, or anything in a folder."""
    try:
        paths = sorted([path, *path.rglob("*")]) if path.is_dir() else [path]
        return tuple((each.name, (found := each.stat()).st_mtime_ns, found.st_size, found.st_ino) for each in paths)
    except OSError as error:
        return (error.errno,)


def _heard(read: Callable[[], Own], stop: threading.Event) -> Own:
    """Return what `read` does, in a thread that is left behind where `stop` is set: a share may hang for ever."""
    found: list[Own | BaseException] = []

    def run() -> None:
        try:
            found.append(read())
        except BaseException as error:  # noqa: BLE001  raised again below
            found.append(error)

    thread = threading.Thread(target=run, name="data", daemon=True)
    thread.start()
    while thread.is_alive():
        if stop.is_set():
            raise Interrupted
        thread.join(LOOK_SECONDS)
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]
