"""Checkpoints: what is written comes back to the bit, or is known to be damaged; a refusing disk changes nothing."""

import hashlib
import itertools
import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from fl_common.errors import ParterreError, StoreError
from fl_common.processes import memory
from fl_common.settings.schema import Settings
from fl_server.store import checkpoints
from fl_server.store.checkpoints import Checkpoint
from fl_server.store.disk.npz import read_npz, write_npz
from fl_server.store.runs import Run
from fl_server.store.seals import seals

EVENT = {"event": "round", "round": 1, "time": "2026-01-01T00:00:00.000+00:00"}


def checkpoint(round_: int = 1, size: int = 8) -> Checkpoint:
    rng = np.random.default_rng(round_)
    arrays = {
        "dense/kernel": rng.normal(size=(size, 3)).astype(np.float32),
        "counter": np.int64(round_) + np.zeros((), int),
    }
    return Checkpoint(round_, arrays, {"m/dense/kernel": rng.normal(size=size)}, {"best": 0.5, "leases": {"7": 0}})


def same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> bool:
    return list(left) == list(right) and all(
        left[name].dtype == right[name].dtype
        and left[name].shape == right[name].shape
        and left[name].tobytes() == right[name].tobytes()
        for name in left
    )


def test_a_checkpoint_comes_back_to_the_bit(tmp_path: Path) -> None:
    written = checkpoint()
    read, event = checkpoints.read(checkpoints.write(tmp_path, written, EVENT))
    assert same(read.arrays, written.arrays)
    assert same(read.strategy, written.strategy)
    assert (read.round, read.notes, event) == (1, written.notes, EVENT)


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(
        st.text("abc/_0.", min_size=1, max_size=9).filter(lambda name: not name.endswith(".npy")),
        npst.arrays(
            st.sampled_from([np.float16, np.float32, np.float64, np.int8, np.uint32, np.bool_]),
            npst.array_shapes(min_dims=0, min_side=0),
        ),
        max_size=4,
    )
)
def test_arrays_of_any_name_type_and_shape_come_back(
    tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, np.ndarray]
) -> None:
    path = tmp_path_factory.mktemp("npz") / "arrays.npz"
    assert same(read_npz(path, write_npz(path, arrays)), arrays)


def test_bfloat16_and_fortran_order_come_back(tmp_path: Path) -> None:
    arrays = {"half": np.arange(6, dtype=ml_dtypes.bfloat16).reshape(2, 3).T, "file": np.asfortranarray(np.eye(3)[:2])}
    written = Checkpoint(4, arrays)
    read, _ = checkpoints.read(checkpoints.write(tmp_path, written, EVENT))
    assert same(read.arrays, arrays)


def test_infinities_in_notes_come_back(tmp_path: Path) -> None:
    read, _ = checkpoints.read(checkpoints.write(tmp_path, Checkpoint(1, {}, {}, {"best": float("inf")}), EVENT))
    assert read.notes == {"best": float("inf")}


@pytest.mark.parametrize("name", [checkpoints.ARRAYS, checkpoints.STATE, checkpoints.MANIFEST])
def test_one_flipped_bit_in_any_file_is_found(tmp_path: Path, name: str) -> None:
    directory = checkpoints.write(tmp_path, checkpoint(), EVENT)
    content = bytearray((directory / name).read_bytes())
    content[len(content) // 2] ^= 1
    (directory / name).write_bytes(content)
    with pytest.raises(StoreError, match="damaged"):
        checkpoints.read(directory)


@pytest.mark.parametrize("name", [checkpoints.ARRAYS, checkpoints.STATE, checkpoints.MANIFEST])
def test_a_missing_file_is_found(tmp_path: Path, name: str) -> None:
    directory = checkpoints.write(tmp_path, checkpoint(), EVENT)
    (directory / name).unlink()
    with pytest.raises(StoreError):
        checkpoints.read(directory)


def test_pickled_objects_are_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        checkpoints.write(tmp_path, Checkpoint(1, {"x": np.array([{}], dtype=object)}), EVENT)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / ".0003.99").mkdir()
    (tmp_path / ".0003.99" / "arrays.npz").write_bytes(b"half")
    checkpoints.write(tmp_path, checkpoint(4), EVENT)
    assert [entry.name for entry in tmp_path.iterdir()] == ["0004"]
    assert checkpoints.numbers(tmp_path) == [4]


def test_checkpoints_of_a_course_that_was_given_up_are_removed(tmp_path: Path) -> None:
    for round_ in (1, 2, 3, 9):
        checkpoints.write(tmp_path, checkpoint(round_), EVENT)
    checkpoints.prune(tmp_path, 3, keep=2)
    assert checkpoints.numbers(tmp_path) == [2, 3]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"cannot mount a small file system here: {mount.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_on_a_full_disk_the_last_good_checkpoint_stands(small_disk: Path) -> None:
    run = Run.create(small_disk / "run", Settings())
    run.commit(checkpoint(1), EVENT)
    with pytest.raises(StoreError, match=r"round 2 .*disk is full.*fl resume"):
        run.commit(checkpoint(2, size=200_000), {"event": "round", "round": 2})
    stored = run.latest()
    assert stored is not None
    assert same(stored.arrays, checkpoint(1).arrays)
    assert sorted(entry.name for entry in (run.directory / "checkpoints").iterdir()) == ["0001", "rounds.jsonl"]
    assert [event["round"] for event in run.rounds()] == [1]


def test_on_a_full_disk_an_event_is_written_whole_or_not_at_all(small_disk: Path) -> None:
    run = Run.create(small_disk / "run", Settings())
    with pytest.raises(StoreError, match="disk is full"):
        _append_for_ever(run)
    count = len(run.events())
    (small_disk / "run" / "settings.toml").unlink()
    run.append({"event": "failed", "error": "disk"})
    assert len(run.events()) == count + 1


def _append_for_ever(run: Run) -> None:
    for number in itertools.count():
        run.append({"event": "started", "run": "x" * 3000, "number": number})


def test_a_read_only_file_system_is_named_as_such(small_disk: Path) -> None:
    run = Run.create(small_disk / "run", Settings())
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for refused in (lambda: run.commit(checkpoint(), EVENT), lambda: run.append(EVENT)):
        with pytest.raises(StoreError, match="read-only"):
            refused()


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from fl_common.processes import memory
from fl_common.errors import ParterreError, StoreError
from fl_common.settings.schema import Settings
from fl_server.store.runs import Checkpoint, Run

run = Run.create(Path(sys.argv[1]), Settings())
run.commit(Checkpoint(1, {"w": np.ones(10, np.float32)}), {"event": "round", "round": 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    run.commit(Checkpoint(2, {"w": np.ones(100_000, np.float32)}), {"event": "round", "round": 2})
except StoreError as error:
    sys.stdout.write(str(error))
"""


def test_a_file_that_may_not_grow_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "run")]
    child = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "round 2" in child.stdout
    assert "larger than this process may write" in child.stdout
    assert child.stderr == ""
    stored = Run.open(tmp_path / "run").latest()
    assert stored is not None
    assert (stored.round, stored.arrays["w"].tolist()) == (1, [1.0] * 10)
    assert checkpoints.numbers(tmp_path / "run" / "checkpoints") == [1]


def _zip_that_declares(path: Path, shape: tuple[int, ...], *, size: int | None = None) -> None:
    """An npz with a header of any shape and 16 bytes of data; `size`: what the archive says that it holds."""
    with zipfile.ZipFile(path, "w") as archive, archive.open("w.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": shape})
        member.write(bytes(16))
    if size is not None:
        there = path.read_bytes()
        with zipfile.ZipFile(path) as archive:
            (info,) = archive.infolist()
        path.write_bytes(there.replace(struct.pack("<L", info.file_size), struct.pack("<L", size)))


@pytest.mark.parametrize("size", [None, 0xFFFFFF00])
@pytest.mark.parametrize("shape", [(5_000_000_000,), (2**62, 2**62), (-4,), (3,)])
def test_arrays_that_declare_another_size_than_they_have_are_damaged(
    tmp_path: Path, shape: tuple[int, ...], size: int | None
) -> None:
    _zip_that_declares(tmp_path / "arrays.npz", shape, size=size)
    with pytest.raises(StoreError, match=r"arrays\.npz is damaged"):
        read_npz(tmp_path / "arrays.npz", {})


def _as_if_whole(directory: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a manifest, or its files, and make all sums those of what is there then."""
    path = directory / "manifest.json"
    body = json.loads(path.read_text())["checkpoint"]
    body = change(body) or body
    if isinstance(body, dict) and isinstance(body.get("sums"), dict):
        body["sums"] = {name: seals.sum_of(directory / name) for name in ("arrays.npz", "state.npz")}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({"sha256": digest, "checkpoint": body}))


WORSE: dict[str, Callable[[Path], object]] = {
    "nested JSON": lambda path: (path / "manifest.json").write_text("[" * 100_000),
    "nested in JSON": lambda path: (path / "manifest.json").write_text('{"checkpoint": ' + "[" * 100_000),
    "binary": lambda path: (path / "manifest.json").write_bytes(bytes(range(256))),
    "a list": lambda path: _as_if_whole(path, lambda body: [body]),
    "no sums": lambda path: _as_if_whole(path, lambda body: body.pop("sums") and None),
    "no number": lambda path: _as_if_whole(path, lambda body: body.pop("round") and None),
    "another round": lambda path: _as_if_whole(path, lambda body: body | {"round": 9}),
    "no event": lambda path: _as_if_whole(path, lambda body: body | {"event": 5}),
    "declares 20 GB": lambda path: _as_if_whole(
        path, lambda body: _zip_that_declares(path / "arrays.npz", (5_000_000_000,))
    ),
    "no archive": lambda path: _as_if_whole(path, lambda body: (path / "arrays.npz").write_bytes(b"PK" * 99) and None),
    "an empty archive of arrays": lambda path: _as_if_whole(
        path, lambda body: (path / "arrays.npz").write_bytes(b"") and None
    ),
    "pickled": lambda path: _as_if_whole(
        path, lambda body: np.savez(path / "arrays.npz", w=np.array([{}], dtype=object))
    ),
    "emptied": lambda path: (path / "arrays.npz").write_bytes(b""),
    "gone": lambda path: (path / "state.npz").unlink(),
}


@pytest.mark.parametrize("damage", WORSE)
def test_whatever_became_of_the_newest_checkpoint_the_older_one_is_taken(tmp_path: Path, damage: str) -> None:
    run = Run.create(tmp_path / "run", Settings(keep=2, keep_best=""))
    for number in (1, 2):
        run.commit(checkpoint(number), EVENT | {"round": number})
    WORSE[damage](tmp_path / "run" / "checkpoints" / "0002")
    found = Run.open(tmp_path / "run").latest()
    assert found is not None
    assert found.round == 1


def test_a_whole_checkpoint_that_does_not_fit_into_memory_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.create(tmp_path / "run", Settings(keep_best=""))
    run.commit(checkpoint(1), EVENT)
    run.commit(checkpoint(2, size=9_000), EVENT | {"round": 2})
    monkeypatch.setattr(memory, "available", lambda: 50_000)
    with pytest.raises(ParterreError, match=r"arrays\.npz takes 0 MB of memory.*Free some"):
        run.latest()


def test_arrays_that_share_their_bytes_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "arrays.npz"
    np.savez(path, w=np.zeros(50_000))
    with zipfile.ZipFile(path, "a") as archive:
        (info,) = archive.infolist()
        archive.filelist.extend([info] * 9)
        archive._didModify = True
    with pytest.raises(StoreError, match="share their bytes"):
        read_npz(path, {})
