"""Data that do not fit a model are told before the first step; data that do pass, whatever Keras accepts."""

import numpy as np
import pytest

from fl_common.errors import DataError
from fl_common.models.data_check import check_fit
from fl_common.models.frameworks import keras


def model(loss, units=3, shape=(4,), activation=None):
    made = keras.Sequential([keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(units, activation)])
    made.compile("sgd", loss)
    return made


X = np.zeros((6, 4), np.float32)
SPARSE = ["sparse_categorical_crossentropy", keras.losses.SparseCategoricalCrossentropy(from_logits=True)]


@pytest.mark.parametrize("loss", SPARSE)
@pytest.mark.parametrize("y", [np.arange(6) % 3, (np.arange(6) % 3)[:, None], (np.arange(6) % 3).astype(np.float32)])
def test_labels_in_range_fit(loss, y):
    check_fit(model(loss), (X, y))


@pytest.mark.parametrize("loss", SPARSE)
@pytest.mark.parametrize(("y", "words"), [(np.arange(6), "from 0 to 5"), (np.arange(6) % 3 - 1, "from -1 to 1")])
def test_labels_out_of_range_are_told(loss, y, words):
    with pytest.raises(DataError, match=rf"labels must be integers in \[0, 2\]; got labels {words}"):
        check_fit(model(loss), (X, y))


@pytest.mark.parametrize(
    ("made", "y", "words"),
    [
        (lambda: model("sparse_categorical_crossentropy"), np.eye(3)[np.arange(6) % 3], "one-hot ones with"),
        (lambda: model("sparse_categorical_crossentropy"), np.array(list("abcabc")), "Write them as numbers"),
        (lambda: model("categorical_crossentropy"), np.arange(6) % 3, "loss takes labels of shape"),
        (lambda: model("categorical_crossentropy"), np.eye(4)[np.arange(6) % 3], r"of shape \(3,\)"),
        (lambda: model("binary_crossentropy", 1), np.arange(6), r"labels must lie in \[0, 1\]"),
        (lambda: model("sparse_categorical_crossentropy"), np.full(6, np.nan), "from nan to nan"),
        (lambda: model("mse"), np.zeros((6, 5)), "loss cannot be computed"),
    ],
)
def test_labels_that_the_output_does_not_fit_are_told(made, y, words):
    with pytest.raises(DataError, match=words):
        check_fit(made(), (X, y))


@pytest.mark.parametrize("y", [np.arange(6) % 2, (np.arange(6) % 2)[:, None]])
def test_binary_labels_fit_one_unit(y):
    check_fit(model("binary_crossentropy", 1, activation="sigmoid"), (X, y))


@pytest.mark.parametrize(
    ("shape", "x", "fits"),
    [
        ((8, 8), np.zeros((2, 8, 8)), True),
        ((8, 8), np.zeros((2, 8, 8, 1)), True),
        ((8, 8, 1), np.zeros((2, 8, 8)), True),
        ((8, 8), np.zeros((2, 64)), False),
        ((8, 8), np.zeros((2, 9, 8)), False),
        ((4,), (np.zeros((2, 4)), np.zeros((2, 4))), False),
    ],
)
def test_inputs_are_compared_as_keras_takes_them(shape, x, fits):
    made, y = model("sparse_categorical_crossentropy", shape=shape), np.zeros(2, int)
    if fits:
        check_fit(made, (x, y))
    else:
        with pytest.raises(DataError, match=r"the model (takes|has)"):
            check_fit(made, (x, y))


def test_named_inputs_are_compared_by_name():
    inputs = {"left": keras.Input((2,), name="left"), "right": keras.Input((3,), name="right")}
    made = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Concatenate()(list(inputs.values()))))
    made.compile("sgd", "mse")
    check_fit(made, ({"right": np.zeros((2, 3)), "left": np.zeros((2, 2))}, np.zeros((2, 1))))
    with pytest.raises(DataError, match="inputs named"):
        check_fit(made, ({"left": np.zeros((2, 2))}, np.zeros((2, 1))))
    with pytest.raises(DataError, match="the model takes inputs of shape"):
        check_fit(made, ({"right": np.zeros((2, 2)), "left": np.zeros((2, 3))}, np.zeros((2, 1))))


def test_no_example_fits_any_model_and_several_outputs_are_left_to_keras():
    check_fit(model("mse"), (np.zeros((0, 9)), np.zeros(0)))
    entry = keras.Input((4,))
    made = keras.Model(entry, [keras.layers.Dense(2)(entry), keras.layers.Dense(3)(entry)])
    made.compile("sgd", ["mse", "sparse_categorical_crossentropy"])
    check_fit(made, (X, (np.zeros((6, 2)), np.zeros(6))))


def test_a_check_leaves_the_model_as_it_was():
    made = model("sparse_categorical_crossentropy")
    made.add(keras.layers.BatchNormalization())
    made.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    before = [value.copy() for value in made.get_weights()]
    check_fit(made, (np.ones((6, 4)), np.arange(6) % 3))
    assert all(np.array_equal(a, b) for a, b in zip(before, made.get_weights(), strict=True))
