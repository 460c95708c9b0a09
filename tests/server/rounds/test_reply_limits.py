"""Limits on replies: how far an update moves the model, and how large a reply may be."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fl_server.rounds.reply_limits import BLOCK, ROOM, allowed_bytes, distance

floats = hnp.arrays(np.float32, st.integers(0, 40), elements=st.floats(-1e3, 1e3, width=32))


@settings(max_examples=60)
@given(floats, st.floats(-10, 10))
def test_the_distance_of_two_models_is_the_norm_of_their_difference(array, step):
    moved = array + np.float32(step)
    expected = np.linalg.norm(moved.astype(np.float64) - array.astype(np.float64))
    assert distance({"a": moved, "b": array}, {"a": array, "b": array}) == pytest.approx(expected)


def test_all_blocks_of_a_large_array_count_and_integers_do_not():
    zeros = np.zeros((3, BLOCK), np.float32)
    assert distance({"a": zeros + 2, "n": np.array(9)}, {"a": zeros, "n": np.array(4)}) == pytest.approx(
        2 * (3 * BLOCK) ** 0.5
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16, np.complex64])
def test_every_kind_of_number_that_is_averaged_has_a_distance(dtype):
    assert distance({"a": np.full(4, 3, dtype)}, {"a": np.full(4, 1, dtype)}) == 4.0


def test_what_overflows_is_beyond_every_limit():
    assert distance({"a": np.full(2, 1e308)}, {"a": np.full(2, -1e308)}) == np.inf


def test_a_reply_may_be_twice_what_was_sent_unless_a_size_is_set():
    assert allowed_bytes(0.0, 10_000_000) == 20_000_000 + ROOM
    assert allowed_bytes(1.5, 10_000_000) == 1_500_000
