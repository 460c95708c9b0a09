"""Which directory a run of Flower's writes: noted by its ServerApp in the server's home, read by the next one.

A ServerApp that is started again for the same run goes on in the same directory, whatever its run config says.
"""

import os
from pathlib import Path

from fl_common.errors import StoreError
from fl_server.store.disk import whole_writes

HOME_VARIABLE = "FL_HOME_DIR"  # set by fl_server.superlink.process for the ServerApps that it starts
FOLDER = "runs"


class RunDirectories:
    """The notes under a server's home: a file a run, named by Flower's number, that holds the run's directory."""

    def __init__(self, home: Path) -> None:
        self._folder = home / FOLDER

    @classmethod
    def here(cls) -> "RunDirectories | None":
        """Return those of the server that started this process; None where it was no server of ours."""
        home = os.environ.get(HOME_VARIABLE)
        return cls(Path(home)) if home else None

    def note(self, run_id: int, directory: Path) -> None:
        """Note where a run is. Raises StoreError where that cannot be written."""
        with whole_writes.plainly(f"note where run {run_id} is in {self._folder}"):
            self._folder.mkdir(mode=0o700, exist_ok=True)
            for earlier in self._folder.iterdir():  # a run that was submitted again belongs to its newest number only
                if earlier.name.isdecimal() and earlier.read_text(errors="replace") == str(directory.resolve()):
                    earlier.unlink()
            whole_writes.replace(self._folder / str(run_id), str(directory.resolve()).encode())

    def directory(self, run_id: int) -> Path | None:
        """Return where a run is; None where its ServerApp did not get so far."""
        path = self._folder / str(run_id)
        with whole_writes.plainly(f"read {path}"):
            if not path.exists():
                return None
            noted = path.read_bytes()
        try:
            directory = Path(noted.decode())
        except UnicodeError:
            directory = Path()
        if not directory.is_absolute() or "\0" in str(directory):
            raise StoreError(
                f"{path} is damaged: expected the directory of run {run_id}. Write it there (`fl runs` lists the "
                f"directories); or have that run begin anew when the server starts: rm {path}"
            )
        return directory

    def numbers(self) -> dict[Path, int]:
        """Return the number of each run that has one, by its directory; none where this user may not look."""
        try:
            noted = [each for each in self._folder.iterdir() if each.name.isdecimal()]
            return {Path(each.read_text(errors="replace")): int(each.name) for each in noted}
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return {}
