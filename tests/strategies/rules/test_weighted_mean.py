"""The weighted mean: right to the last bit of float32, indifferent to order, and small."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_common.messages.arrays import BLOCK
from strategies.rules import weighted_mean
from strategies.rules.weighted_mean import InOrder, WeightedMean


def updates(number, size, seed=0):
    rng = np.random.default_rng(seed)
    return [({"w": rng.standard_normal(size).astype(np.float32)}, float(rng.integers(1, 999))) for _ in range(number)]


def mean(pairs, **options):
    fold = WeightedMean(pairs[0][0], **options)
    for arrays, weight in pairs:
        fold.fold(arrays, weight)
    return fold.result(pairs[0][0])["w"]


@given(st.integers(1, 6), st.integers(0, 40), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_the_mean_is_numpys_average_in_float64_rounded_once(number, size, seed):
    pairs = updates(number, size, seed)
    stacked = np.stack([arrays["w"] for arrays, _ in pairs]).astype(np.float64)
    expected = np.average(stacked, axis=0, weights=[weight for _, weight in pairs])
    np.testing.assert_allclose(mean(pairs), expected, rtol=1e-7, atol=1e-9)


@given(st.permutations(range(6)), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_the_order_of_arrival_does_not_show_in_a_single_bit(order, seed):
    pairs = updates(6, 1000, seed)
    results = []
    for arrival in (range(6), order):
        fold = InOrder(WeightedMean(pairs[0][0]))
        for slot in arrival:
            fold.add(slot, *pairs[slot])
        results.append(fold.result(pairs[0][0])["w"].tobytes())
    assert results[0] == results[1]


def test_a_held_update_is_folded_once_the_limit_is_reached_lowest_slot_first():
    pairs = updates(5, 100)
    fold = InOrder(WeightedMean(pairs[0][0]), limit=900)
    for slot in (4, 2, 0, 3, 1):
        fold.add(slot, *pairs[slot])
        assert fold._bytes <= 900
    np.testing.assert_allclose(fold.result(pairs[0][0])["w"], mean(pairs), rtol=1e-6)


def test_one_thread_and_three_end_in_the_same_bits():
    pairs = updates(3, 5 * BLOCK + 17)
    assert mean(pairs, threads=1).tobytes() == mean(pairs, threads=3).tobytes()


def test_the_result_does_not_depend_on_which_update_came_before_a_scaled_weight():
    pairs = [({"w": np.array([1.0, 2.0], np.float32)}, 1.0), ({"w": np.array([4.0, 8.0], np.float32)}, 2.0)]
    assert mean(pairs).tolist() == [3.0, 6.0]
    assert mean([(arrays, 10 * weight) for arrays, weight in pairs]).tolist() == [3.0, 6.0]


def test_a_mean_is_used_again_and_forgets_a_round_that_broke_off():
    pairs = updates(4, 3 * BLOCK)
    fold = WeightedMean(pairs[0][0], threads=2)
    fold.fold(*pairs[3])
    fold.begin()
    for arrays, weight in pairs[:3]:
        fold.fold(arrays, weight)
    first = fold.result(pairs[0][0])["w"].copy()
    assert first.tobytes() == mean(pairs[:3]).tobytes()
    for arrays, weight in pairs[:3]:
        fold.fold(arrays, weight)
    assert fold.result(pairs[0][0])["w"].tobytes() == first.tobytes()


def test_dtypes_shapes_order_and_integers_come_out_as_they_went_in():
    like = {
        "half": np.ones((2, 1), np.float16),
        "count": np.array(5, np.int64),
        "scalar": np.array(1.0, np.float32),
        "double": np.ones(3),
        "empty": np.ones((0, 4), np.float32),
        "wave": np.array([1 + 2j], np.complex64),
    }
    fold = WeightedMean(like)
    fold.fold(like, 2)
    fold.fold({name: array * 3 for name, array in like.items()}, 2)
    result = fold.result(like)
    assert list(result) == list(like)
    assert {name: (each.dtype, each.shape) for name, each in result.items()} == {
        name: (each.dtype, each.shape) for name, each in like.items()
    }
    assert result["count"] == 5
    assert result["scalar"] == 2.0
    assert result["wave"][0] == 2 + 4j


def test_the_largest_float32_values_do_not_overflow_in_the_sum():
    huge = {"w": np.full(3, np.finfo(np.float32).max, np.float32)}
    assert mean([(huge, 1e7), (huge, 1e7)]).tolist() == huge["w"].tolist()


def test_memory_does_not_grow_with_the_number_of_updates():
    size = 5 << 20  # 20 MB: too large to be held
    model = {"w": np.zeros(size, np.float32)}
    peaks = []
    WeightedMean(model)  # imports and compiles the kernels, which takes memory of its own
    for number in (2, 12):
        tracemalloc.start()
        fold = InOrder(WeightedMean(model, threads=2))
        for slot in range(number):
            arrays = {"w": np.full(size, slot, np.float32)}
            fold.add(slot, arrays, 1.0)
            del arrays
        assert fold.result(model)["w"][0] == (number - 1) / 2
        peaks.append(tracemalloc.get_traced_memory()[1] / model["w"].nbytes)
        tracemalloc.stop()
    assert max(peaks) < 3.3  # two copies of sums, one update, and a block for each thread
    assert abs(peaks[0] - peaks[1]) < 0.1


@pytest.mark.parametrize("number", [1, 3, 4, 6])
def test_compiled_and_numpy_folding_give_the_same_bits(number: int) -> None:
    rng = np.random.default_rng(3)
    large = {"w": np.zeros(weighted_mean.COMPILED + 5, np.float32)}
    updates = [({"w": rng.normal(size=large["w"].size).astype(np.float32)}, float(9**n)) for n in range(number)]
    compiled = WeightedMean(large, threads=2)
    compiled.fold_all(updates)
    expected = np.zeros(large["w"].size)
    for arrays, weight in updates:
        expected += arrays["w"].astype(np.float64) * weight
    expected /= sum(weight for _, weight in updates)
    assert np.array_equal(compiled.result(large)["w"], expected.astype(np.float32))
