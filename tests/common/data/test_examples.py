"""What loaders return is turned into arrays: lists, nested structures, and tf.data datasets of every kind."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_common.data.examples import count, hold_out, normalised, take
from fl_common.errors import DataError
from fl_common.models.frameworks import tf

X = np.arange(12, dtype=np.uint8).reshape(6, 2)
Y = np.arange(6)


def dataset():
    return tf.data.Dataset.from_tensor_slices((X, Y))


@pytest.mark.parametrize(
    "make",
    [
        dataset,
        lambda: dataset().batch(4),
        lambda: dataset().batch(3, drop_remainder=True),
        lambda: dataset().batch(2, drop_remainder=True).map(lambda x, y: (x, y)).prefetch(1),
        lambda: dataset().batch(4).unbatch(),
        lambda: tf.data.Dataset.from_generator(lambda: zip(X, Y, strict=True), output_signature=dataset().element_spec),
    ],
)
def test_a_dataset_batched_or_not_becomes_the_arrays_it_was_made_of(make):
    x, y = normalised(make(), "load_test()")
    assert x.dtype == np.uint8
    assert np.array_equal(x, X)
    assert np.array_equal(y, Y)


def test_an_unbatched_dataset_of_vectors_of_one_length_is_not_taken_for_batches():
    x, y = normalised(tf.data.Dataset.from_tensor_slices((X, X)), "d")
    assert x.shape == y.shape == (6, 2)


def test_a_dataset_of_nested_inputs_and_weights_keeps_its_structure():
    given_ = ({"b": X, "a": (Y, X)}, Y, np.ones(6, np.float32))
    x, y, weight = normalised(tf.data.Dataset.from_tensor_slices(given_).batch(4), "d")
    assert list(x) == ["b", "a"] or list(x) == ["a", "b"]
    assert np.array_equal(x["b"], X)
    assert np.array_equal(x["a"][0], Y)
    assert (y.shape, weight.dtype) == ((6,), np.float32)


def test_an_empty_dataset_has_no_example_and_the_right_shape():
    x, y = normalised(dataset().take(0), "d")
    assert (x.shape, y.shape, count((x, y))) == ((0, 2), (0,), 0)
    assert normalised(dataset().batch(2).take(0), "d")[0].shape == (0, 2)


def test_lists_tensors_and_lists_of_arrays_are_read_as_keras_reads_them():
    x, y = normalised([[[1.0, 2.0], [3.0, 4.0]], tf.constant([0, 1])], "d")
    assert (x.shape, y.tolist()) == ((2, 2), [0, 1])
    inputs, _ = normalised(([X, X], Y), "d")
    assert isinstance(inputs, tuple)
    text, _ = normalised((np.array(["rose", "tulip"], dtype=object), [0, 1]), "d")
    assert text.dtype.kind == "U"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (X, "got ndarray"),
        ((X,), "got a tuple of 1"),
        ((X, Y, Y, Y), "got a tuple of 4"),
        ((X, Y[:5]), r"same number of examples; got x: \[6\], y: \[5\]"),
        ((X, Y, np.ones(7)), "sample_weight must have the same number"),
        (([[1], [1, 2]], [0, 1]), "one shape for every example"),
        ((np.array([{}, {}]), [0, 1]), "Python objects"),
        (({}, Y), "x holds no array"),
    ],
)
def test_what_are_no_examples_is_told(value, words):
    with pytest.raises(DataError, match=words):
        normalised(value, "load_test()")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: dataset().repeat(), "endless"),
        (lambda: tf.data.Dataset.from_tensor_slices(X), "got a dataset of"),
        (
            lambda: dataset().map(lambda x, y: (tf.debugging.check_numerics(1 / y, "bad"), y)),
            "cannot be read",
        ),
    ],
)
def test_a_dataset_that_cannot_be_read_is_told(make, words):
    with pytest.raises(DataError, match=words):
        normalised(make(), "d")


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 200), st.floats(0, 0.99), st.integers(0, 2**31 - 1))
def test_holding_out_loses_nothing_and_leaves_training_an_example(total, fraction, seed):
    train, validation = hold_out((np.arange(total), np.arange(total)), fraction, seed)
    assert count(train) >= 1
    assert sorted([*train[0], *validation[0]]) == list(range(total))
    assert abs(count(validation) - fraction * total) <= 1


def test_taking_examples_keeps_structure_and_dtype():
    part = take(({"a": X, "b": (X, Y)}, Y), np.array([5, 0]))
    assert part[0]["b"][1].tolist() == [5, 0]
    assert part[0]["a"].dtype == np.uint8


@pytest.mark.parametrize(
    ("frame", "dtype"),
    [
        (pd.DataFrame({"a": [True, False], "b": [False, True]}), bool),
        (pd.DataFrame({"a": [True, False], "b": [1.5, 2.0]}), np.float64),
        (pd.DataFrame({"a": [True, False], "b": [1, 2]}), np.int64),
        (pd.DataFrame({"a": pd.array([True, False], dtype="boolean"), "b": pd.array([1, 2], dtype="Int64")}), np.int64),
        (pd.DataFrame({"a": np.array([True, False], object)}), bool),
    ],
)
def test_a_frame_of_booleans_and_numbers_is_an_array_of_numbers(frame, dtype):
    x, _ = normalised((frame, [0, 1]), "here")
    assert x.dtype == dtype
    assert x[:, 0].tolist() == [True, False]


def test_a_frame_with_gaps_or_dates_is_no_array():
    for value in (pd.NA, None, pd.Timestamp("2020-01-02")):
        with pytest.raises(DataError, match="numbers or text"):
            normalised((pd.DataFrame({"a": [True, value]}), [0, 1]), "here")
