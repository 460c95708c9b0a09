"""Small arrays that travel together come out as they went in; anything else is refused."""

import json

import numpy as np
import pytest
from flwr.app import ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fl_common.errors import RejectedReply
from fl_common.messages import packed_arrays
from fl_common.messages.arrays import encode

ANY_ARRAY = arrays(st.sampled_from([np.float32, np.float64, np.int64]), array_shapes(min_dims=0, max_side=4))
NAMES = st.text(max_size=8).filter(str.isprintable)
CONTENT = st.dictionaries(NAMES, ANY_ARRAY, min_size=1, max_size=6)


def content_of(values: dict[str, np.ndarray]) -> RecordDict:
    return RecordDict(
        {"arrays": encode(values), "metrics": MetricRecord({"loss": 1.5}), "config": ConfigRecord({"round": 3})}
    )


@given(CONTENT)
def test_unpack_undoes_pack(values: dict[str, np.ndarray]) -> None:
    content = content_of(values)
    restored = packed_arrays.unpack(packed_arrays.pack(content))
    assert set(restored) == set(content)
    assert restored["metrics"] == content["metrics"]
    assert list(restored["arrays"]) == list(values)
    for name, array in content["arrays"].items():
        assert restored["arrays"][name] == array


def test_large_arrays_stay_as_they_are_and_names_keep_their_order() -> None:
    values = {"a": np.zeros(3, "f"), "big": np.zeros(1 << 15, "f"), "b": np.ones(2, "f")}
    packed = packed_arrays.pack(content_of(values))
    assert list(packed["arrays"]) == ["big"]
    assert packed_arrays.is_packed(packed)
    assert list(packed_arrays.unpack(packed)["arrays"]) == ["a", "big", "b"]


def test_one_small_array_is_not_worth_a_record_of_its_own() -> None:
    content = content_of({"a": np.zeros(3, "f")})
    assert not packed_arrays.is_packed(packed_arrays.pack(content))


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_not_raised(data: bytes) -> None:
    content = RecordDict({"arrays~small": ConfigRecord({"arrays": data})})
    with pytest.raises(RejectedReply, match="malformed"):
        packed_arrays.unpack(content)


@pytest.mark.parametrize("damage", [lambda data: data + b"x", lambda data: data[:-1], lambda data: data[1:]])
def test_a_damaged_record_is_refused(damage) -> None:  # type: ignore[no-untyped-def]
    packed = packed_arrays.pack(content_of({"a": np.zeros(3, "f"), "b": np.ones(2, "f")}))
    packed["arrays~small"] = ConfigRecord({"arrays": damage(packed["arrays~small"]["arrays"])})
    with pytest.raises(RejectedReply, match="malformed"):
        packed_arrays.unpack(packed)


def test_a_name_that_comes_twice_is_refused() -> None:
    packed = packed_arrays.pack(content_of({"a": np.zeros(3, "f"), "b": np.ones(2, "f")}))
    packed["arrays"] = encode({"a": np.zeros(3, "f")})
    with pytest.raises(RejectedReply, match="malformed"):
        packed_arrays.unpack(packed)


def packed_of(described: list[list[object]], data: bytes = b"") -> RecordDict:
    header = json.dumps([[each[0] for each in described], described]).encode()
    content = b"".join((packed_arrays.LENGTH.pack(len(header)), header, data))
    return RecordDict({"arrays~small": ConfigRecord({"arrays": content})})


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\ud800", r"\ud800"),
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("a\nfinished", r"a\nfinished"),
        ("w" * 10_000, "www"),
        (5, "5"),
        (None, "None"),
    ],
)
def test_a_name_that_cannot_be_shown_is_refused_in_words_that_can(name: object, shown: str) -> None:
    with pytest.raises(RejectedReply, match="malformed") as refusal:
        packed_arrays.unpack(packed_of([[name, "float32", [], "numpy.ndarray", 0]]))
    assert shown in refusal.value.detail
    assert refusal.value.detail.isprintable()
    assert len(refusal.value.detail) < 700


def test_more_arrays_than_were_asked_for_are_refused_before_they_are_taken_apart() -> None:
    many = packed_of([[str(place), "float32", [], "numpy.ndarray", 0] for place in range(2000)])
    with pytest.raises(RejectedReply, match="more than 1000 arrays"):
        packed_arrays.unpack(many, most=1000)
    with pytest.raises(RejectedReply, match="bytes for at most 4 arrays"):
        packed_arrays.unpack(many, most=4)
    assert len(packed_arrays.unpack(many, most=2000)["arrays"]) == 2000
