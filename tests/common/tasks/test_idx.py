"""IDX files are read, plain or gzipped; a damaged one is told; the image tasks take a folder of them."""

import gzip
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_common.errors import DataError
from fl_common.settings.schema import Settings
from fl_common.tasks.builtin import cifar10, idx
from fl_common.tasks.task import build, check_fit, count, resolve


def content(array: np.ndarray, code: int = 0x08) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape) + array.tobytes()


def folder(path, image=(28, 28), packed=False, separator="-"):
    path.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    for part, total in (("train", 40), ("t10k", 10)):
        for kind, shape in (("images", (total, *image)), ("labels", (total,))):
            data = content(random.integers(0, 10, shape, dtype=np.uint8))
            name = f"{part}-{kind}{separator}idx{len(shape)}-ubyte"
            (path / (name + ".gz" * packed)).write_bytes(gzip.compress(data) if packed else data)
    return path


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(list(idx.TYPES.items())),
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.booleans(),
    st.data(),
)
def test_what_was_written_is_read(tmp_path_factory, kind, shape, packed, data):
    code, dtype = kind
    size = int(np.prod(shape))
    values = data.draw(st.lists(st.integers(0, 100), min_size=size, max_size=size))
    array = np.array(values, dtype).reshape(shape)
    path = tmp_path_factory.mktemp("idx") / ("a.gz" if packed else "a")
    path.write_bytes(gzip.compress(content(array, code)) if packed else content(array, code))
    assert np.array_equal(idx.read(path), array)
    assert idx.read(path).dtype == np.dtype(dtype).newbyteorder("=")


GOOD = content(np.zeros((3, 2), np.uint8))


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a", b"", "cannot be read|no IDX file"),
        ("a", b"PK\3\4", "it begins with the bytes 50 4b 03 04"),
        ("a", GOOD[:6], "is no IDX file"),
        ("a", GOOD[:-1], "must have 18 bytes"),
        ("a", GOOD + b"\0", "it has 19"),
        ("a", GOOD[:2] + b"\x07" + GOOD[3:], "is no IDX file"),
        ("a.gz", GOOD, "cannot be read"),
        ("a.gz", gzip.compress(GOOD, mtime=0)[:-4], "cannot be read"),
    ],
)
def test_a_damaged_file_is_told(tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=words):
        idx.read(tmp_path / name)


@pytest.mark.parametrize(("packed", "separator"), [(False, "-"), (True, "-"), (False, ".")])
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_a_task_takes_a_folder_of_idx_files(tmp_path, name, packed, separator):
    task = resolve(Settings(task=name, data_dir=str(folder(tmp_path / "idx", packed=packed, separator=separator))))
    train, validation = task.load_partition(0, 2)
    assert (train[0].shape, train[0].dtype, train[1].dtype) == ((16, 28, 28), np.uint8, np.int64)
    assert count(validation) == 4
    assert count(task.load_test()) == 10
    check_fit(build(task, 0), train)


def test_cifar10_takes_idx_files_and_the_binary_version(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    records = np.concatenate([np.arange(6, dtype=np.uint8)[:, None], pictures.transpose(0, 3, 1, 2).reshape(6, -1)], 1)
    for number in (1, 2):
        records[number * 2 - 2 : number * 2].tofile(tmp_path / f"data_batch_{number}.bin")
    records[4:].tofile(tmp_path / "test_batch.bin")
    (x, y), (_, held) = cifar10.read_binary(tmp_path)
    assert np.array_equal(x, pictures[:4])
    assert (y.tolist(), held.tolist()) == ([0, 1, 2, 3], [4, 5])
    task = resolve(Settings(task="cifar10", data_dir=str(tmp_path)))
    check_fit(build(task, 0), task.load_partition(0, 2)[0])
    other = resolve(Settings(task="cifar10", data_dir=str(folder(tmp_path / "idx", image=(32, 32, 3)))))
    assert other.load_test()[0].shape == (10, 32, 32, 3)


def test_a_damaged_binary_batch_is_told(tmp_path):
    (tmp_path / "data_batch_1.bin").write_bytes(b"\0" * 3073)
    (tmp_path / "test_batch.bin").write_bytes(b"\0" * 100)
    with pytest.raises(DataError, match="records of 3073 bytes; it has 100"):
        cifar10.read_binary(tmp_path)


def test_a_folder_without_the_files_is_told(tmp_path):
    with pytest.raises(DataError, match="has no train-images-idx"):
        resolve(Settings(task="mnist", data_dir=str(tmp_path))).load_test()
    with pytest.raises(DataError, match="is no folder"):
        resolve(Settings(task="mnist", data_dir=str(tmp_path / "no"))).load_test()


def test_images_and_labels_of_different_lengths_are_told(tmp_path):
    folder(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(content(np.zeros(39, np.uint8)))
    with pytest.raises(DataError, match=r"train files .*same number of examples"):
        idx.load(tmp_path)


def test_what_a_compressed_file_declares_is_held_against_memory_before_it_is_unpacked(tmp_path):
    path = tmp_path / "images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(b"\0\0\x08\x03" + b"\xff\xff\xff\xff" * 3))
    with pytest.raises(DataError, match="MB of memory once it is loaded"):
        idx.read(path)


def test_a_compressed_file_that_unpacks_to_more_than_it_declares_is_not_unpacked_whole(tmp_path):
    path = tmp_path / "labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(b"\0\0\x08\x01\0\0\0\x04" + bytes(50_000_000)))
    with pytest.raises(DataError, match=r"must have 12 bytes .* it has 1028"):
        idx.read(path)
