"""A client's own data: npz, csv, parquet and folders of images are read, and what is wrong with them is told."""

import io
import os
import socket
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fl_common.errors import DataError
from fl_common.processes import memory
from fl_common.settings.schema import Settings
from fl_common.tasks.client_data.files import DataOptions, load
from fl_common.tasks.task import count

TABLE = pd.DataFrame({"age": [30, 40, 50, 60, 70], "dose": [0.5, 1.5, 2.5, 3.5, 4.5], "ill": [0, 1, 0, 1, 1]})


def read(path, label="ill", **values):
    return load(path, DataOptions(label), Settings(**values))


def joined(parts, item):
    return np.concatenate([part[item] for part in parts])


def picture(path, size=(6, 4), mode="L", value=7):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 0, 0)).save(path)


def test_npz_is_split_where_it_has_no_validation_part_and_kept_where_it_has(tmp_path):
    x, y = np.arange(20, dtype=np.uint8).reshape(10, 2), np.arange(10)
    np.savez(tmp_path / "a.npz", x=x, y=y, sample_weight=np.ones(10))
    parts = read(tmp_path / "a.npz")
    assert [count(part) for part in parts] == [8, 2]
    assert [len(part) for part in parts] == [3, 3]
    assert parts[0][0].dtype == np.uint8
    assert sorted(joined(parts, 1)) == list(range(10))
    np.savez(tmp_path / "b.npz", x=x, y=y, x_val=x[:3], y_val=y[:3])
    assert [count(part) for part in read(tmp_path / "b.npz")] == [10, 3]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_gives_numbers_and_a_label_column_by_name(tmp_path, ending):
    path = tmp_path / f"own.{ending}"
    TABLE.to_csv(path, index=False) if ending == "csv" else TABLE.to_parquet(path)
    (x, y), validation = parts = read(path)
    assert (x.dtype, y.dtype, count(validation)) == (np.float32, np.int64, 1)
    rows = np.column_stack([joined(parts, 0), joined(parts, 1)])
    assert np.array_equal(rows[rows[:, 0].argsort()], TABLE.to_numpy(np.float32))


def test_a_table_may_hold_weights_ids_and_a_measured_label(tmp_path):
    table = TABLE.assign(sample_weight=[1.0] * 5, shop=list("aabbc"))
    table.to_csv(tmp_path / "own.csv", index=False)
    (x, y, weight), _ = read(tmp_path / "own.csv", "dose", id_column="shop")
    assert (x.shape, y.dtype, weight.dtype) == ((4, 2), np.float32, np.float32)


def test_a_folder_of_images_is_read_by_class_and_an_empty_class_keeps_its_number(tmp_path):
    for name in ("b/1.png", "b/2.png", "c/deep/3.png"):
        picture(tmp_path / name)
    (tmp_path / "a").mkdir()
    (tmp_path / "b" / "notes.txt").write_text("no image")
    parts = read(tmp_path)
    assert parts[0][0].shape[1:] == (4, 6)
    assert parts[0][0].dtype == np.uint8
    assert sorted(joined(parts, 1)) == [1, 1, 2]


def test_grey_and_colour_images_together_are_colour(tmp_path):
    picture(tmp_path / "a" / "grey.png")
    picture(tmp_path / "b" / "red.png", mode="RGB")
    x = joined(read(tmp_path), 0)
    assert x.shape == (2, 4, 6, 3)
    assert sorted(x[:, 0, 0].tolist()) == [[7, 0, 0], [7, 7, 7]]


def test_one_example_goes_to_training(tmp_path):
    TABLE[:1].to_csv(tmp_path / "one.csv", index=False)
    assert [count(part) for part in read(tmp_path / "one.csv", validation_fraction=0.9)] == [1, 0]


def _npz(**arrays):
    return lambda path: np.savez(path, **arrays)


@pytest.mark.parametrize(
    ("name", "write", "words"),
    [
        ("none.csv", lambda path: None, "there are no data at"),
        ("a.txt", lambda path: path.write_text("1,2"), "must be an npz, csv or parquet file"),
        ("a.npz", lambda path: path.write_text("no zip"), "cannot be read as npz"),
        ("b.npz", _npz(x=np.zeros(3)), "must hold arrays named x and y; it holds"),
        ("c.npz", _npz(x=np.zeros((0, 2)), y=np.zeros(0)), "has no example"),
        ("d.npz", _npz(x=np.zeros(3), y=np.zeros(4)), "same number of examples"),
        ("e.npz", lambda path: np.savez(path, x=np.array([{}]), y=np.zeros(1)), "cannot be read as npz"),
        ("a.csv", lambda path: TABLE.to_csv(path).__class__, "no label column 'label'"),
        ("b.csv", lambda path: path.write_text("label\n1\n"), "no column beside"),
        ("c.csv", lambda path: path.write_text("x,label\n1,0\n,1\n"), "1 missing values"),
        ("d.csv", lambda path: path.write_text("x,label\nred,0\n"), "column 'x' of .* must hold numbers; got string"),
        ("e.csv", lambda path: path.write_text("x,label\n1,rose\n"), "column 'label' of .* must hold numbers"),
        ("f.csv", lambda path: path.write_text("x,label\n"), "has no example"),
        ("g.csv", lambda path: path.write_text(""), "cannot be read as csv"),
        ("a.parquet", lambda path: path.write_text("no parquet"), "cannot be read as parquet"),
        ("empty", lambda path: path.mkdir(), "it has no sub-folder"),
        ("bare", lambda path: (path / "a").mkdir(parents=True), "hold no image"),
        (
            "broken",
            lambda path: [picture(path / "a" / "1.png"), (path / "a" / "2.png").write_text("?")],
            "2.png cannot",
        ),
        (
            "sizes",
            lambda path: [picture(path / "a" / "1.png"), picture(path / "a" / "2.png", size=(5, 5))],
            r"2.png has \(5, 5\) and .*1.png has \(4, 6\)",
        ),
    ],
)
def test_data_that_cannot_be_used_are_told(tmp_path, name, write, words):
    write(tmp_path / name)
    with pytest.raises(DataError, match=words):
        read(tmp_path / name, "label")


def test_a_pipe_a_device_and_a_socket_are_no_data(tmp_path):
    os.mkfifo(tmp_path / "own.csv")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "own.npz"))
        for path in (tmp_path / "own.csv", tmp_path / "own.npz", Path("/dev/zero")):
            with pytest.raises(DataError, match="is no regular file"):
                read(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("place", range(4))
def test_a_damaged_file_is_named_whatever_its_library_raises(tmp_path, method, place):
    path = tmp_path / "own.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name in ("x", "y"):
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, np.arange(5000))
    content = bytearray(path.read_bytes())
    start = len(content) * (2 * place + 1) // 8
    content[start : start + 40] = b"\xff" * 40
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"own\.npz"):
        read(path)


def test_what_an_archive_declares_is_held_against_memory_before_it_is_read(tmp_path):
    path, header = tmp_path / "own.npz", io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2**40, 9)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header.getvalue())
        archive.writestr("y.npy", header.getvalue())
        archive.writestr("readme.txt", "of no interest")
    with pytest.raises(DataError, match=r"takes [0-9]{9} MB of memory once it is loaded"):
        read(path)


def test_what_a_parquet_file_declares_is_held_against_memory_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "own.parquet"
    pd.DataFrame({"x": np.zeros(200_000), "label": np.zeros(200_000, int)}).to_parquet(path)
    assert path.stat().st_size < 10_000
    monkeypatch.setattr(memory, "available", lambda: 1_000_000)
    with pytest.raises(DataError, match="takes 5 MB of memory once it is loaded; 1 MB are there"):
        read(path)


def test_pictures_are_held_against_memory_by_their_headers(tmp_path, monkeypatch):
    picture(tmp_path / "a" / "1.png", size=(1000, 1000))
    (tmp_path / "a" / "2.png").write_bytes((tmp_path / "a" / "1.png").read_bytes()[:-20])  # cannot be decoded
    monkeypatch.setattr(memory, "available", lambda: 1_999_999)
    with pytest.raises(DataError, match="takes 2 MB of memory"):
        read(tmp_path)


def test_the_memory_of_this_machine_is_known():
    assert 1_000_000 < memory.available() < 2**50
