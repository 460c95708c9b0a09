"""Evaluation in one compiled program, beside Keras's own."""

import numpy as np
import pytest

from fl_common.errors import TaskError
from fl_common.models.evaluation import Evaluator
from fl_common.models.frameworks import keras
from fl_common.models.weights import weights_of
from fl_common.tasks.builtin import digits

layers = keras.layers


def several_outputs():
    inputs = keras.Input((64,), name="pixels")
    body = layers.Dropout(0.5)(layers.BatchNormalization()(layers.Dense(12, kernel_regularizer="l2")(inputs)))
    digit, odd = layers.Dense(10, "softmax", name="digit")(body), layers.Dense(1, "sigmoid", name="odd")(body)
    model = keras.Model({"pixels": inputs}, {"digit": digit, "odd": odd})
    losses = {"digit": "sparse_categorical_crossentropy", "odd": "binary_crossentropy"}
    model.compile("sgd", losses, metrics={"digit": "accuracy", "odd": [keras.metrics.AUC()]}, weighted_metrics=[])
    x, y = digits.load()[1]
    return model, ({"pixels": x}, {"digit": y, "odd": (y % 2).astype("float32")[:, None]})


def simple(**options):
    model = keras.Sequential([keras.Input((64,)), layers.Dense(10, "softmax", name="top")])
    model.compile("sgd", "sparse_categorical_crossentropy", **({"metrics": ["accuracy"]} | options))
    return model, digits.load()[1]


def with_weights():
    model, (x, y) = simple(weighted_metrics=["accuracy"])
    return model, (x, y, np.random.default_rng(0).uniform(0, 2, len(y)).astype("float32"))


@pytest.mark.parametrize("make", [simple, several_outputs, with_weights])
@pytest.mark.parametrize("batch_size", [50, 256, 1000])
def test_it_gives_what_model_evaluate_gives(make, batch_size):
    model, data = make()
    arrays = weights_of(model)
    came = Evaluator(model, batch_size=batch_size).evaluate(arrays, data)
    x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
    wanted = model.evaluate(x, y, sample_weight=weight, batch_size=batch_size, verbose=0, return_dict=True)
    assert came == pytest.approx(wanted, abs=1e-6)


def test_it_evaluates_the_arrays_it_is_given_and_is_traced_once():
    model, data = simple()
    evaluator, arrays = Evaluator(model), weights_of(model)
    losses = [evaluator.evaluate({k: v * scale for k, v in arrays.items()}, data)["loss"] for scale in (1, 0, 1)]
    assert losses[0] == losses[2]
    assert losses[1] == pytest.approx(np.log(10), abs=1e-6)
    assert evaluator.traces == 1


def test_a_score_for_each_class_becomes_one_metric_each():
    model, (x, y) = simple()
    model.compile("sgd", "categorical_crossentropy", metrics=[keras.metrics.F1Score(name="f1")])
    came = Evaluator(model).evaluate(weights_of(model), (x, np.eye(10, dtype="float32")[y]))
    assert set(came) == {"loss", *(f"f1_{digit}" for digit in range(10))}


def test_a_test_step_of_the_models_own_is_used():
    class Constant(keras.Sequential):
        def test_step(self, data):
            return {"constant": 3.0}

    model = Constant([keras.Input((64,)), layers.Dense(10)])
    model.compile("sgd", "mse")
    assert Evaluator(model).evaluate(weights_of(model), digits.load()[1]) == {"constant": 3.0}


def test_no_examples_give_no_metrics():
    model, (x, y) = simple()
    assert Evaluator(model).evaluate(weights_of(model), (x[:0], y[:0])) == {}


def test_arrays_of_another_model_are_refused():
    model, data = simple()
    with pytest.raises(TaskError, match="not this model's: top/kernel"):
        Evaluator(model).evaluate({"top/bias": np.zeros(10, "float32")}, data)
