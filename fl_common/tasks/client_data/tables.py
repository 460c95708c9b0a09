"""A client's csv or parquet file: columns by name, through the task's `prepare` where it has one, into x and y."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_common.data.examples import Examples
from fl_common.errors import DataError, ParterreError, Shown, TaskError
from fl_common.processes.memory import check_room
from fl_common.tasks.client_data.data_names import NUMBERS, Schema
from fl_common.trust.disclosure import type_of

ENDINGS = (".csv", ".parquet", ".pq")
WEIGHTS = "sample_weight"
INDEX = re.compile(r"__index_level_\d+__")  # what pandas calls the index of a table in a parquet file
NAMELESS = re.compile(r"|Unnamed: \d+")  # and in a csv file, when it writes one and when it reads that
CELL_BYTES = 12  # of a number in Arrow and in x

Prepare = Callable[[Any], Any]


@dataclass(frozen=True)
class Table:
    """A table's columns as numbers. x float32 [n, columns] in the file's order, `names` and `kinds` of its columns."""

    path: Path
    x: NDArray[np.float32]
    y: NDArray[Any]
    weights: NDArray[np.float32] | None
    names: tuple[str, ...]
    schema: Schema = field(compare=False)

    def examples(self, order: Sequence[str] = ()) -> Examples:
        """Return (x, y) or (x, y, sample_weight) with the columns in `order`; "" takes the file's. Raises DataError."""
        x = self.x
        if order and tuple(order) != self.names:
            places = {name: place for place, name in enumerate(self.names)}
            if places.keys() != set(order):
                raise DataError("the columns of {path} are not those that the run agreed on.", path=self.path)
            x = x[:, [places[name] for name in order]]
        return (x, self.y) if self.weights is None else (x, self.y, self.weights)


def read(path: Path, label: str, ignored: Sequence[str] = (), prepare: Prepare | None = None) -> Table:
    """Return the table of a file; columns that are `ignored` are left out.

    prepare: the task's own, from the table as a pandas.DataFrame to one of numbers. Raises DataError where the file is
    no table of numbers, TaskError where `prepare` fails.
    """
    table = _read(path)
    table = table.drop_columns([name for name in table.column_names if name in ignored or INDEX.fullmatch(name)])
    source = {name: _kind(table[name].type) for name in table.column_names} if prepare else {}
    if prepare:
        table = _prepared(table, prepare, path)
    _check_label(table, label, path)
    names = [name for name in table.column_names if name not in (label, WEIGHTS)]
    if not names:
        raise DataError(
            "{path} has no column beside {label!r}; at least one feature is needed.", path=path, label=label
        )
    x = np.empty((table.num_rows, len(names)), np.float32)
    for place, name in enumerate(names):
        x[:, place] = _numbers(table, name, path)
    y = _numbers(table, label, path)
    y = y.astype(np.float32) if y.dtype.kind == "f" else y.astype(np.int64)
    weights = _numbers(table, WEIGHTS, path).astype(np.float32) if WEIGHTS in table.column_names else None
    kinds = {name: _kind(table[name].type) for name in names}
    return Table(path, x, y, weights, tuple(names), Schema(kinds, label, source))


def _read(path: Path) -> Any:
    from pyarrow import csv, parquet

    ending = path.suffix.lower()
    try:
        if ending != ".csv":
            _check_declared(parquet.ParquetFile(path).metadata, path)
        gaps = csv.ConvertOptions(strings_can_be_null=True)
        table = csv.read_csv(path, convert_options=gaps) if ending == ".csv" else parquet.read_table(path)
        names = table.column_names  # these are decoded here, and may be no text
    except ParterreError:
        raise
    except Exception as error:  # noqa: BLE001  readers raise what they meet, MemoryError and RecursionError among it
        raise DataError(
            "{path} cannot be read as {kind}: {error}", path=path, kind=Shown(ending[1:]), error=error
        ) from None
    _check_names(names, path)
    return table


def _check_declared(metadata: Any, path: Path) -> None:
    whole = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    check_room(max(whole, metadata.num_rows * metadata.num_columns * CELL_BYTES), path)


def _prepared(table: Any, prepare: Prepare, path: Path) -> Any:
    import pandas as pd
    import pyarrow

    try:
        frame = prepare(table.to_pandas())
    except Exception as error:
        raise TaskError(
            "prepare of the task fails on {path}: {kind}: {error}", path=path, kind=Shown(type_of(error)), error=error
        ) from error
    if not isinstance(frame, pd.DataFrame):
        raise TaskError(
            "prepare of the task must return a pandas.DataFrame; got {kind}.", kind=Shown(type(frame).__name__)
        )
    frame = frame.set_axis([str(name) for name in frame.columns], axis="columns")
    _check_names(list(frame.columns), path)
    try:
        return pyarrow.Table.from_pandas(frame, preserve_index=False)
    except Exception as error:  # noqa: BLE001  a column of mixed values, named with one of them
        raise DataError(
            "what prepare of the task makes of {path} is no table of numbers: {error}", path=path, error=error
        ) from None


def _check_names(names: list[str], path: Path) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(
            "{path} has the column {column!r} {times} times. Give each column a name of its own.",
            path=path,
            column=twice[0],
            times=names.count(twice[0]),
        )


def _check_label(table: Any, label: str, path: Path) -> None:
    if label not in table.column_names:
        raise DataError(
            "{path} has no label column {label!r}; its columns are {columns}. Name it with --label.",
            path=path,
            label=label,
            columns=", ".join(table.column_names),
        )
    if table.num_rows == 0:
        raise DataError("{path} has no example. A client needs at least one.", path=path)
    for name in filter(NAMELESS.fullmatch, table.column_names):
        if _kind(table[name].type) == "integer" and np.all(np.diff(_numbers(table, name, path)) > 0):
            raise DataError(
                "column {column!r} of {path} has no name and counts the rows: it is the index of a table, not a "
                "feature. Write the file without it (pandas: index=False), or leave it out with --ignore {column!r}.",
                column=name,
                path=path,
            )


def _numbers(table: Any, name: str, path: Path) -> NDArray[Any]:
    """Return a column's values. Raises DataError where they are no numbers, or where some are missing."""
    column = table[name]
    kind = _kind(column.type)
    if kind not in NUMBERS:
        raise DataError(
            "column {column!r} of {path} must hold numbers; got {kind}. "
            "Turn it into numbers in a function prepare(frame) of the task, or leave it out with --ignore.",
            column=name,
            path=path,
            kind=column.type,
        )
    values = column.cast("double").to_numpy() if kind == "number" else column.to_numpy()
    missing = column.null_count or (int(np.isnan(values).sum()) if kind == "number" else 0)
    if missing:
        raise DataError(
            "column {column!r} of {path} has {missing} missing values. Fill or drop them first, or in a function "
            "prepare(frame) of the task.",
            column=name,
            path=path,
            missing=missing,
        )
    return np.asarray(values)


def _kind(type_: Any) -> str:
    from pyarrow import types

    if types.is_dictionary(type_):
        return _kind(type_.value_type)
    kinds = {
        "boolean": types.is_boolean,
        "integer": types.is_integer,
        "number": lambda each: types.is_floating(each) or types.is_decimal(each),
        "date": types.is_temporal,
        "text": lambda each: types.is_string(each) or types.is_large_string(each) or types.is_string_view(each),
        "empty": types.is_null,
    }
    return next((kind for kind, fits in kinds.items() if fits(type_)), "other")
