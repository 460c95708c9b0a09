"""A client's own data: npz, csv and parquet files, and folders of images by class. Read with `fl client --data`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from fl_common.errors import DataError
from fl_common.examples import Examples, count, hold_out, normalised
from fl_common.settings import Settings

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
WEIGHTS = "sample_weight"


@dataclass(frozen=True)
class DataOptions:
    """How a client's own file is read. `label` is the column of labels of a csv or parquet file."""

    label: str = "label"


def load(path: Path, options: DataOptions, settings: Settings) -> tuple[Examples, Examples]:
    """Return (train, validation) of a file or folder; validation is drawn by `settings` where the file has none.

    - .npz: arrays x and y [n, ...]; optional sample_weight [n], x_val and y_val.
    - .csv, .parquet: the column `options.label` is y: int64, or float32 for a regression; a column sample_weight is
      taken as such, `settings.id_column` is left out; all others, in the file's order, are x, float32 [n, columns].
    - a folder: one sub-folder for each class, the same on every client (it may be empty); classes are numbered in the
      order of their sorted names; x uint8 [n, height, width] where all are grey, else [n, height, width, 3].

    Raises DataError where it is missing, unreadable, empty or of another kind.
    """
    path = path.expanduser()
    if not path.exists():
        raise DataError(f"there are no data at {path}. Give --data an npz, csv or parquet file, or a folder of images.")
    if path.suffix == ".npz" and path.is_file():
        return _npz(path, settings)
    examples = _images(path) if path.is_dir() else _table(path, options, settings.id_column)
    return hold_out(_filled(examples, path), settings.validation_fraction, settings.seed)


def _filled(examples: Examples, path: Path) -> Examples:
    if count(examples) == 0:
        raise DataError(f"{path} has no example. A client needs at least one.")
    return examples


def _npz(path: Path, settings: Settings) -> tuple[Examples, Examples]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, BadZipFile) as error:
        raise DataError(f"{path} cannot be read as npz: {error}. Write it with numpy.savez(path, x=x, y=y).") from None
    if "x" not in arrays or "y" not in arrays:
        raise DataError(f"{path} must hold arrays named x and y; it holds {sorted(arrays)}.")
    named = ("x", "y", WEIGHTS) if WEIGHTS in arrays else ("x", "y")
    train = _filled(normalised(tuple(arrays[name] for name in named), str(path)), path)
    if "x_val" in arrays and "y_val" in arrays:
        return train, normalised((arrays["x_val"], arrays["y_val"]), f"x_val and y_val of {path}")
    return hold_out(train, settings.validation_fraction, settings.seed)


def _table(path: Path, options: DataOptions, id_column: str) -> Examples:
    table = _read_table(path)
    if options.label not in table.column_names:
        raise DataError(
            f"{path} has no label column {options.label!r}; its columns are {', '.join(table.column_names)}. "
            "Name it with --label."
        )
    if table.num_rows == 0:
        raise DataError(f"{path} has no example. A client needs at least one.")
    features = [name for name in table.column_names if name not in (options.label, WEIGHTS, id_column)]
    if not features:
        raise DataError(f"{path} has no column beside {options.label!r}; at least one feature is needed.")
    x = np.stack([_column(table, name, path).astype(np.float32) for name in features], axis=1)
    y = _column(table, options.label, path)
    y = y.astype(np.float32) if y.dtype.kind == "f" else y.astype(np.int64)
    if WEIGHTS in table.column_names:
        return x, y, _column(table, WEIGHTS, path).astype(np.float32)
    return x, y


def _read_table(path: Path) -> Any:
    import pyarrow
    from pyarrow import csv, parquet

    readers = {".csv": csv.read_csv, ".parquet": parquet.read_table, ".pq": parquet.read_table}
    if path.suffix.lower() not in readers:
        raise DataError(f"{path} must be an npz, csv or parquet file, or a folder; got the ending {path.suffix!r}.")
    try:
        table = readers[path.suffix.lower()](path)
        _ = table.column_names  # these are decoded here, and may be no text
        return table
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as {path.suffix.lower()[1:]}: {error}") from None


def _column(table: Any, name: str, path: Path) -> NDArray[Any]:
    column = table[name]
    if column.null_count:
        raise DataError(f"column {name!r} of {path} has {column.null_count} missing values. Fill or drop them first.")
    values: NDArray[Any] = column.to_numpy()
    if values.dtype.kind not in "biuf":
        raise DataError(
            f"column {name!r} of {path} must hold numbers; got {column.type}. "
            "Write it as integers from 0, the same for every client, or leave it out."
        )
    return values


def _images(folder: Path) -> Examples:
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise DataError(f"folder {folder} must hold one sub-folder of images for each class; it has no sub-folder.")
    files = [(file, label) for label, entry in enumerate(classes) for file in _image_files(entry)]
    if not files:
        raise DataError(f"the class folders of {folder} hold no image ({', '.join(IMAGES)}).")
    pictures = [_picture(file) for file, _ in files]
    if any(picture.ndim == 3 for picture in pictures):
        pictures = [np.stack([picture] * 3, axis=2) if picture.ndim == 2 else picture for picture in pictures]
    for (file, _), picture in zip(files, pictures, strict=True):
        if picture.shape != pictures[0].shape:
            raise DataError(
                f"all images must have one size; {file} has {picture.shape[:2]} and {files[0][0]} has "
                f"{pictures[0].shape[:2]} (height, width). Resize them first."
            )
    return np.stack(pictures), np.array([label for _, label in files], np.int64)


def _image_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMAGES)


def _picture(file: Path) -> NDArray[np.uint8]:
    from PIL import Image

    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("L" if image.mode in ("1", "L", "I;16") else "RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{file} cannot be read as an image: {error}. Mend or remove it.") from None
