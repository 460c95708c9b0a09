"""The data of the clients of `fl up`: one file or folder for each, kept in the run's directory for `fl resume`."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from fl_common.errors import SettingsError, StoreError
from fl_server.store.runs import Run
from fl_server.store.seals.seals import DATA as FILE

Data = Annotated[
    list[str] | None,
    typer.Option(help="A client's own data: npz, csv, parquet, or a folder of images. Once for each client."),
]
Label = Annotated[str, typer.Option(help="Label column of --data. (default: label)")]
Ignore = Annotated[list[str] | None, typer.Option(help="A column of --data that is no feature. Repeatable.")]


@dataclass(frozen=True)
class LocalData:
    """A file or folder for each client, all read alike; none where the clients share a task's data."""

    paths: tuple[str, ...] = ()
    label: str = ""
    ignore: tuple[str, ...] = ()

    @classmethod
    def of(cls, paths: Sequence[str] | None, label: str, ignore: Sequence[str] | None) -> "LocalData":
        """Return what the options say. Raises SettingsError, or DataError where a file is missing."""
        if (label or ignore) and not paths:
            raise SettingsError("--label and --ignore say how --data is read: give --data, once for each client")
        if paths:
            from fl_common.tasks.client_data import files

            for path in paths:
                files.check(Path(path))
        return cls(tuple(str(Path(path).expanduser().resolve()) for path in paths or ()), label, tuple(ignore or ()))

    def clients(self, asked: int | None, default: int) -> int:
        """Return how many clients there are. Raises SettingsError where another number was asked for."""
        if self.paths and asked is not None and asked != len(self.paths):
            raise SettingsError(f"--clients must be {len(self.paths)}, one for each --data; got {asked}. Leave it out")
        return len(self.paths) or asked or default

    def keep(self, run: Run) -> None:
        """Write it into a run."""
        if self.paths:
            run.files.keep(FILE, json.dumps(asdict(self)))

    @classmethod
    def kept(cls, directory: Path) -> "LocalData":
        """Return what a run's directory holds. Raises StoreError where that is damaged."""
        try:
            found = json.loads((directory / FILE).read_text())
            return cls.of(found["paths"], found["label"], found["ignore"])
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{directory / FILE} cannot be read: {error}. It says which data the clients have"
            ) from None
