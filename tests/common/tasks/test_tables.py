"""Tables as people have them: strings, dates, booleans, gaps, an index; what `prepare` makes of them, or what to do."""

import numpy as np
import pandas as pd
import pytest

from fl_common.errors import DataError, TaskError
from fl_common.settings.schema import Settings
from fl_common.tasks.client_data import files
from fl_common.tasks.client_data.data_names import Schema
from fl_common.tasks.client_data.files import DataOptions, divided, load
from fl_common.tasks.client_data.tables import read

PEOPLE = pd.DataFrame(
    {
        "age": [30.0, None, 50.0, 60.0],
        "sex": ["f", "m", None, "f"],
        "smokes": [True, False, None, True],
        "born": pd.to_datetime(["1990-01-02", "1980-03-04", "1970-05-06", "1960-07-08"]),
        "stage": pd.Categorical(["I", "II", "I", "III"]),
        "ill": ["yes", "no", "no", "yes"],
    }
)


def prepare(frame):
    frame = frame.dropna(subset=["sex"])
    return pd.DataFrame(
        {
            "age": frame["age"].fillna(frame["age"].mean()),
            "is_f": frame["sex"] == "f",
            "smokes": frame["smokes"].astype(bool),
            "year": pd.to_datetime(frame["born"]).dt.year,
            "ill": (frame["ill"] == "yes").astype(int),
        }
    )


@pytest.fixture(params=["csv", "parquet"])
def write(request, tmp_path):
    def write(table):
        path = tmp_path / f"own.{request.param}"
        table.to_csv(path, index=False) if request.param == "csv" else table.to_parquet(path)
        return path

    return write


def test_prepare_turns_strings_dates_booleans_and_gaps_into_numbers(write):
    table = read(write(PEOPLE), "ill", prepare=prepare)
    assert table.names == ("age", "is_f", "smokes", "year")
    assert table.x.tolist() == [[30, 1, 1, 1990], [45, 0, 0, 1980], [60, 1, 1, 1960]]
    assert (table.x.dtype, table.y.tolist(), table.y.dtype) == (np.float32, [1, 0, 1], np.int64)
    assert table.schema.columns == {"age": "number", "is_f": "boolean", "smokes": "boolean", "year": "integer"}
    assert table.schema.source["sex"] == table.schema.source["stage"] == "text"
    assert table.schema.source["born"] == "date"
    assert (table.schema.source["smokes"], table.schema.source["age"]) == ("boolean", "number")


@pytest.mark.parametrize("column", ["sex", "born", "stage"])
def test_a_column_that_is_no_number_is_named_with_what_to_do(write, column):
    with pytest.raises(
        DataError, match=rf"column '{column}' of .* must hold numbers; got .*prepare\(frame\).*--ignore"
    ):
        read(write(PEOPLE[[column, "ill"]].dropna()), "ill")


@pytest.mark.parametrize("column", ["age", "smokes"])
def test_missing_values_are_counted_with_what_to_do(write, column):
    with pytest.raises(DataError, match=rf"column '{column}' of .* has 1 missing values.*prepare\(frame\)"):
        read(write(PEOPLE[[column, "ill"]].assign(ill=1)), "ill")


def test_a_parquet_file_of_nan_has_missing_values_too(tmp_path):
    path = tmp_path / "own.parquet"
    pd.DataFrame({"x": np.array([1.0, np.nan]), "label": [0, 1]}).to_parquet(path)
    with pytest.raises(DataError, match="1 missing values"):
        read(path, "label")


def test_booleans_are_0_and_1(write):
    table = read(write(pd.DataFrame({"a": [True, False], "b": [1, 2], "label": [False, True]})), "label")
    assert (table.x.tolist(), table.y.tolist()) == ([[1, 1], [0, 2]], [0, 1])


def test_columns_are_taken_by_name_in_the_order_of_a_run(write):
    own = read(write(pd.DataFrame({"b": [1, 2], "a": [3, 4], "label": [0, 1]})), "label")
    assert own.names == ("b", "a")
    (x, _), _ = divided(own, Settings(validation_fraction=0), ("a", "b"))
    assert x.tolist() == [[3, 1], [4, 2]]
    with pytest.raises(DataError, match="not those that the run agreed on"):
        divided(own, Settings(), ("a", "c"))


def test_the_index_that_pandas_writes_is_no_feature(tmp_path):
    table = pd.DataFrame({"a": [5, 6, 7], "label": [0, 1, 0]}, index=[2, 4, 9])
    table.to_parquet(tmp_path / "own.parquet")
    assert read(tmp_path / "own.parquet", "label").names == ("a",)
    table.to_csv(tmp_path / "own.csv")
    with pytest.raises(DataError, match=r"column '' of .* counts the rows.*index=False.*--ignore ''"):
        read(tmp_path / "own.csv", "label")
    assert read(tmp_path / "own.csv", "label", [""]).names == ("a",)
    pd.read_csv(tmp_path / "own.csv").to_csv(tmp_path / "again.csv", index=False)
    with pytest.raises(DataError, match=r"column 'Unnamed: 0' of .* counts the rows"):
        read(tmp_path / "again.csv", "label")


def test_a_column_that_comes_twice_is_named(tmp_path):
    (tmp_path / "own.csv").write_text("a,b,a,label\n1,2,3,0\n")
    with pytest.raises(DataError, match="has the column 'a' 2 times"):
        read(tmp_path / "own.csv", "label")


def test_ignored_columns_and_ids_are_left_out(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("a,who,shop,label\n1,Smith,b,0\n2,Miller,c,1\n")
    own = files.read(path, DataOptions(ignore=("who",)), id_column="shop")
    assert (own.names, files.schema_of(own)) == (("a",), Schema({"a": "integer"}, "label"))


@pytest.mark.parametrize(
    ("made", "error", "words"),
    [
        (lambda frame: frame.to_numpy(), TaskError, "must return a pandas.DataFrame; got ndarray"),
        (lambda frame: frame["nothing"], TaskError, "prepare of the task fails on .*own.csv: KeyError"),
        (lambda frame: pd.concat([frame, frame], axis=1), DataError, "has the column 'a' 2 times"),
        (lambda frame: frame.drop(columns="label"), DataError, "no label column 'label'"),
        (lambda frame: frame.assign(b=[1, "x"]), DataError, "is no table of numbers"),
        (lambda frame: frame.assign(b=["w", "x"]), DataError, "column 'b' of .* must hold numbers"),
        (lambda frame: frame.assign(b=[1.0, np.nan]), DataError, "1 missing values"),
        (lambda frame: frame[:0], DataError, "has no example"),
    ],
)
def test_what_prepare_makes_is_looked_at(tmp_path, made, error, words):
    (tmp_path / "own.csv").write_text("a,label\n1,0\n2,1\n")
    with pytest.raises(error, match=words):
        load(tmp_path / "own.csv", DataOptions(), Settings(), prepare=made)
