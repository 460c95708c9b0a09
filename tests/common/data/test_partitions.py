"""Splitting a shared data set: every example in exactly one partition, none empty, the same everywhere."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fl_common.data.partitions import partition_indices, power_law, split
from fl_common.errors import DataError
from fl_common.settings.schema import Settings

SCHEMES = ["iid", "dirichlet", "shards", "power_law", "natural"]


def scheme(name: str, **values) -> Settings:
    return Settings(partitioning=name, id_column="id" if name == "natural" else "", **values)


def is_partition(parts: list[np.ndarray], examples: int) -> bool:
    joined = np.concatenate(parts)
    return all(len(part) for part in parts) and np.array_equal(np.sort(joined), np.arange(examples))


@st.composite
def cases(draw: st.DrawFn):
    labels = np.array(draw(st.lists(st.integers(0, 6), min_size=1, max_size=60)))
    classes = len(np.unique(labels))
    chosen = scheme(
        draw(st.sampled_from(SCHEMES)),
        seed=draw(st.integers(0, 2**31 - 1)),
        alpha=draw(st.floats(1e-6, 1e6)),
        power=draw(st.floats(0.01, 6)),
        classes_per_client=draw(st.integers(1, classes)),
    )
    most = classes if chosen.partitioning == "natural" else len(labels)
    return labels, draw(st.integers(1, most)), chosen


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases())
def test_every_example_lands_in_exactly_one_partition_and_none_is_empty(case):
    labels, partitions, chosen = case
    parts = split(labels, partitions, chosen, ids=labels)
    assert len(parts) == partitions
    assert is_partition(parts, len(labels))


@pytest.mark.parametrize("alpha", [1e-300, 1e-9, 1e300])
def test_an_extreme_alpha_leaves_no_partition_empty(alpha):
    labels = np.arange(40) % 4
    assert is_partition(split(labels, 7, scheme("dirichlet", alpha=alpha)), 40)


@pytest.mark.parametrize("name", SCHEMES)
def test_the_split_depends_on_the_seed_and_on_nothing_else(name, monkeypatch, tmp_path):
    labels = np.repeat(np.arange(10), 30)
    first = split(labels, 5, scheme(name, seed=3), ids=labels)
    monkeypatch.setenv("FL_CACHE", str(tmp_path))
    again = split(labels, 5, scheme(name, seed=3), ids=labels)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    other = split(labels, 5, scheme(name, seed=4), ids=labels)
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_iid_partitions_have_equal_sizes():
    sizes = [len(part) for part in split(np.zeros(103), 10, scheme("iid"))]
    assert max(sizes) - min(sizes) <= 1


def test_a_small_alpha_is_more_uneven_than_a_large_one():
    labels = np.repeat(np.arange(10), 100)

    def unevenness(alpha: float) -> float:
        parts = split(labels, 5, scheme("dirichlet", alpha=alpha))
        return float(np.mean([np.bincount(labels[part], minlength=10).std() for part in parts]))

    assert unevenness(0.1) > 4 * unevenness(100.0)


@pytest.mark.parametrize(("partitions", "classes"), [(10, 2), (5, 8), (20, 1), (10, 3)])
def test_shards_give_each_client_exactly_the_classes_asked_for(partitions, classes):
    labels = np.repeat(np.arange(10), 60)
    parts = split(labels, partitions, scheme("shards", classes_per_client=classes))
    assert [len(np.unique(labels[part])) for part in parts] == [classes] * partitions


def test_shards_of_too_few_clients_for_every_class_are_equal_shares_sorted_by_label():
    labels = np.repeat(np.arange(10), 60)
    parts = split(labels, 2, scheme("shards", classes_per_client=2))
    assert [len(part) for part in parts] == [300, 300]
    assert is_partition(parts, 600)


def test_power_law_sizes_follow_the_law():
    sizes = power_law(10_000, 4, 1.0)
    assert sum(sizes) == 10_000
    assert np.allclose(np.array(sizes) / sizes[0], [1, 1 / 2, 1 / 3, 1 / 4], atol=0.001)
    assert [len(part) for part in split(np.zeros(10_000), 4, scheme("power_law", power=1.0))] == sizes


def test_natural_keeps_all_examples_of_an_id_together():
    ids = np.array(["ann", "bob", "eve", "ann", "kim", "bob", "eve", "joe"])
    parts = split(np.zeros(8), 3, scheme("natural"), ids=ids)
    held = [set(ids[part]) for part in parts]
    assert sum(len(names) for names in held) == 5
    assert split(np.zeros(8), 5, scheme("natural"), ids=ids)


@pytest.mark.parametrize(
    "labels", [np.eye(4)[np.arange(40) % 4], (np.arange(40) % 4)[:, None], np.array(list("abcd") * 10)]
)
def test_one_hot_labels_column_labels_and_text_are_split_like_integers(labels):
    plain = split(np.arange(40) % 4, 4, scheme("dirichlet"))
    assert all(np.array_equal(a, b) for a, b in zip(plain, split(labels, 4, scheme("dirichlet")), strict=True))


@pytest.mark.parametrize(
    ("labels", "partitions", "chosen", "ids", "words"),
    [
        (np.zeros(3), 4, scheme("iid"), None, "3 examples cannot be split into 4"),
        (np.zeros(0), 1, scheme("iid"), None, "0 examples cannot be split"),
        (np.zeros(3), 0, scheme("iid"), None, "into 0 partitions"),
        (np.random.default_rng(0).random(9), 2, scheme("dirichlet"), None, "one class label for each example"),
        (np.zeros(9), 2, scheme("shards"), None, "classes_per_client must be at most 1"),
        (np.zeros(9), 2, scheme("natural"), None, "pass ids"),
        (np.zeros(9), 2, scheme("natural"), np.zeros(8), "ids must be one for each of 9"),
        (np.zeros(9), 2, scheme("natural"), np.zeros(9), "has 1 ids"),
    ],
)
def test_what_cannot_be_split_is_told(labels, partitions, chosen, ids, words):
    with pytest.raises(DataError, match=words):
        split(labels, partitions, chosen, ids=ids)


def test_a_partition_outside_the_range_is_told():
    with pytest.raises(DataError, match=r"\[0, 4\); got 4"):
        partition_indices(np.zeros(9), 4, 4, Settings())


def test_a_kept_split_is_read_and_a_damaged_one_computed_anew(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("FL_CACHE", str(tmp_path))
    labels = np.arange(30) % 3
    first = split(labels, 3, scheme("dirichlet"))
    (file,) = (tmp_path / "splits").glob("*.npz")
    file.write_bytes(file.read_bytes()[:40])
    again = split(labels, 3, scheme("dirichlet"))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert "damaged" in caplog.text


def test_without_a_writable_cache_the_split_is_computed_and_a_warning_logged(monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FL_CACHE", str(tmp_path / "file"))
    assert is_partition(split(np.arange(30) % 3, 3, scheme("dirichlet")), 30)
    assert "cannot be used" in caplog.text


def _split_in_a_process(folder: str) -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FL_CACHE", folder)
        return np.concatenate(split(np.arange(60) % 3, 4, scheme("dirichlet"))).tobytes()


def test_processes_that_start_at_once_get_the_same_split(tmp_path: Path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert len(set(pool.map(_split_in_a_process, [str(tmp_path)] * 3))) == 1
    assert len(list((tmp_path / "splits").glob("*.npz"))) == 1
    assert not list((tmp_path / "splits").glob("*.tmp"))
