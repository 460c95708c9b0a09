"""A client's own data: npz, csv and parquet files, and folders of images by class. Read with `fl client --data`."""

import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from fl_common.data.examples import Examples, count, hold_out, normalised
from fl_common.errors import DataError, ParterreError
from fl_common.processes.memory import check_room
from fl_common.settings.schema import Settings
from fl_common.tasks.client_data import pictures, tables
from fl_common.tasks.client_data.data_names import Schema
from fl_common.tasks.client_data.pictures import Pictures
from fl_common.tasks.client_data.tables import WEIGHTS, Prepare, Table

ARRAYS = ("x", "y", WEIGHTS, "x_val", "y_val")
FORMS = "an npz, csv or parquet file, or a folder of images"


@dataclass(frozen=True)
class DataOptions:
    """How a client's own file is read. `label` is the column of labels of a csv or parquet file.

    ignore: columns that are no features.
    """

    label: str = "label"
    ignore: tuple[str, ...] = ()


@dataclass(frozen=True)
class Archive:
    """The arrays of an npz file; `validation` is None where it has none."""

    train: Examples
    validation: Examples | None


Own = Archive | Table | Pictures


def load(
    path: Path, options: DataOptions, settings: Settings, *, prepare: Prepare | None = None
) -> tuple[Examples, Examples]:
    """Return (train, validation) of a file or folder: `read`, then `divided`."""
    return divided(read(path, options, id_column=settings.id_column, prepare=prepare), settings)


def read(path: Path, options: DataOptions, *, id_column: str = "", prepare: Prepare | None = None) -> Own:
    """Return what a file or folder holds.

    - .npz: arrays x and y [n, ...]; optional sample_weight [n], x_val and y_val.
    - .csv, .parquet: the column `options.label` is y: int64, or float32 for a regression; a column sample_weight is
      taken as such, `id_column` and `options.ignore` are left out; all others are x, float32 [n, columns], in the
      file's order unless a run has another one.
    - a folder: one sub-folder for each class, the same on every client (it may be empty); classes are numbered in the
      order of their sorted names; x [n, height, width] where all are grey, else [n, height, width, 3], in [0, 255]:
      uint8, or float32 where a picture has more than 8 bits.

    Raises DataError where it is missing, no regular file, unreadable, empty, too large, or of another kind.
    """
    path = path.expanduser()
    check(path)
    try:
        if path.is_dir():
            with readable(path):
                return pictures.read(path)
        if path.suffix.lower() == ".npz":
            return _archive(path)
        if path.suffix.lower() in tables.ENDINGS:
            ignored = (*options.ignore, *([id_column] if id_column else []))
            return tables.read(path, options.label, ignored, prepare)
    except ParterreError:
        raise
    except Exception as error:
        raise DataError("{path} cannot be read: {error}. Mend or replace it.", path=path, error=error) from error
    raise DataError(f"{{path}} must be {FORMS}; got the ending {{ending!r}}.", path=path, ending=path.suffix)


def check(path: Path) -> None:
    """Raise DataError where there is no readable file or folder: a pipe or a device may never come to an end."""
    path = path.expanduser()
    with readable(path):
        _check(path)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn a refusal of the operating system into a DataError that names what it refused, or else `path`."""
    try:
        yield
    except OSError as error:
        raise DataError(
            "{path} cannot be read: {error}. Let this user ({user}) read it (files need mode r, folders r and x).",
            path=error.filename or path,
            error=error.strerror or error,
            user=os.geteuid(),
        ) from None


def _check(path: Path) -> None:
    if not path.exists():
        raise DataError(f"there are no data at {{path}}. Give --data {FORMS}.", path=path)
    if not (path.is_file() or path.is_dir()):
        raise DataError(f"{{path}} is no regular file. Give --data {FORMS}.", path=path)
    if path.is_dir():
        os.scandir(path).close()
    else:
        path.open("rb").close()


def divided(own: Own, settings: Settings, order: Sequence[str] = ()) -> tuple[Examples, Examples]:
    """Return (train, validation); validation is drawn by `settings` where the file has none.

    order: of a table's columns. Raises DataError where it has others.
    """
    if isinstance(own, Archive):
        if own.validation is not None:
            return own.train, own.validation
        return hold_out(own.train, settings.validation_fraction, settings.seed)
    examples = own.examples(order) if isinstance(own, Table) else (own.x, own.y)
    return hold_out(examples, settings.validation_fraction, settings.seed)


def schema_of(own: Own) -> Schema:
    """Return what the data are called: the columns of a table, the classes of pictures; of an npz file nothing."""
    if isinstance(own, Table):
        return own.schema
    return Schema(classes=own.classes) if isinstance(own, Pictures) else Schema()


def _archive(path: Path) -> Archive:
    try:
        check_room(_declared(path), path)
        with np.load(path, allow_pickle=False) as file:
            names, arrays = sorted(file.files), {name: file[name] for name in ARRAYS if name in file.files}
    except ParterreError:
        raise
    except Exception as error:  # noqa: BLE001  numpy, zipfile and each compression have their own
        raise DataError(
            "{path} cannot be read as npz: {error}. Write it with numpy.savez(path, x=x, y=y).", path=path, error=error
        ) from None
    if "x" not in arrays or "y" not in arrays:
        raise DataError("{path} must hold arrays named x and y; it holds {names}.", path=path, names=names)
    named = ("x", "y", WEIGHTS) if WEIGHTS in arrays else ("x", "y")
    train = normalised(tuple(arrays[name] for name in named), str(path))
    if count(train) == 0:
        raise DataError("{path} has no example. A client needs at least one.", path=path)
    if "x_val" in arrays and "y_val" in arrays:
        return Archive(train, normalised((arrays["x_val"], arrays["y_val"]), f"x_val and y_val of {path}"))
    return Archive(train, None)


def _declared(path: Path) -> int:
    """Return the bytes that the arrays of an npz file take, by their headers."""
    total = 0
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.filename.removesuffix(".npy") in ARRAYS:
                with archive.open(member) as file:
                    total += _array_bytes(file)
    return total


def _array_bytes(file: Any) -> int:
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)
    size = dtype.itemsize
    for each in shape:
        size *= int(each)
    return size
