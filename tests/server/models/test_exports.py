"""Exports: a SavedModel and a TFLite file answer as the model with training off, or are refused with a sentence."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_common.errors import ExportError
from fl_common.models.frameworks import keras, tf
from fl_server.models.exports import keras_format, same_answers, saved_model, tflite
from fl_server.models.exports.inputs import Inputs, answers, inputs_of
from tests.support.model_zoo import MODELS, examples_of_subclassed

ONE_AT_A_TIME = {
    *("lstm", "lstm_of_any_length", "stacked_gru", "bidirectional_with_a_mask", "bidirectional_gru"),
    *("convolutional_lstm", "mixed_precision"),
}
FAST = ("augmented", "lstm")


def each_model(*fast: str) -> list[Any]:
    return [pytest.param(name, marks=() if name in fast else pytest.mark.slow) for name in MODELS]


def takes(model: Any) -> Inputs:
    return inputs_of(model, examples_of_subclassed)


@pytest.mark.parametrize("name", each_model("augmented"))
def test_a_saved_model_answers_alike_twice_and_as_the_model_with_training_off(tmp_path: Path, name: str) -> None:
    model = MODELS[name]()
    inputs = takes(model)
    saved_model.write(model, inputs, tmp_path / "saved")
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    for sample in inputs.samples:
        twice = [[np.asarray(part) for part in keras.tree.flatten(loaded.serve(sample.x))] for _ in range(2)]
        for answer in twice:
            assert same_answers.apart(answer, answers(model, sample.x)) < 1e-4


@pytest.mark.parametrize("name", [each for each in each_model("lstm") if each.values != ("text",)])
def test_a_tflite_file_runs_in_this_interpreter_and_answers_as_the_model(name: str) -> None:
    model = MODELS[name]()
    assert tflite.compute_in_float32(model) == (name in ("mixed_precision", "half_precision"))
    inputs = takes(model)
    content, batch = tflite.convert(model, inputs)
    assert (batch == 1) == (name in ONE_AT_A_TIME)
    sample = inputs.samples[0].row(1)
    runner = tf.lite.Interpreter(model_content=content).get_signature_runner("serving_default")
    found = runner(
        **{key: each.numpy() for key, each in zip(inputs.names(), keras.tree.flatten(sample.x), strict=True)}
    )
    expected = answers(model, sample.x)
    assert len(found) == len(expected)
    for key, each in found.items():
        wanted = expected[int(key.removeprefix("output_"))] if key.startswith("output_") else expected["ab".index(key)]
        np.testing.assert_allclose(each, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODELS if name != "subclassed"])
def test_a_keras_file_answers_as_the_model(tmp_path: Path, name: str) -> None:
    model = MODELS[name]()
    keras_format.write(model, takes(model), tmp_path / "model.keras", {})
    assert (tmp_path / "model.keras").is_file()


@pytest.mark.slow
def test_what_a_machine_with_a_gpu_exports_of_a_recurrent_model_needs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["keras.src.backend.tensorflow.rnn"], "_is_gpu_available", lambda: True)
    model = keras.Sequential([keras.Input((6, 3)), keras.layers.LSTM(4, return_sequences=True), keras.layers.GRU(4)])
    saved_model.write(model, takes(model), tmp_path / "saved")
    assert b"Cudnn" not in (tmp_path / "saved" / "saved_model.pb").read_bytes()
    assert tflite.convert(model, takes(model))[1] == 1


class Drawing(keras.layers.Layer):
    """A variational layer, which draws whether it trains or not."""

    def __init__(self, **layer: Any) -> None:
        super().__init__(**layer)
        self.seed_generator = keras.random.SeedGenerator(1)

    def call(self, x: Any) -> Any:
        return x + keras.random.normal(keras.ops.shape(x), seed=self.seed_generator)


def test_a_model_that_draws_also_with_training_off_is_refused_by_name_except_as_a_keras_file(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), Drawing(name="latent"), keras.layers.Dense(1)])
    inputs = takes(model)
    with pytest.raises(ExportError, match=r"differently each time.*latent.*--format keras"):
        saved_model.write(model, inputs, tmp_path / "saved")
    with pytest.raises(ExportError, match=r"differently each time.*latent"):
        tflite.convert(model, inputs)
    keras_format.write(model, inputs, tmp_path / "model.keras", {})


def test_an_export_that_answers_otherwise_or_otherwise_when_asked_again_is_refused() -> None:
    model = MODELS["dense"]()
    samples, drawn = takes(model).samples, np.random.default_rng(0)
    same_answers.hold(lambda sample: sample.answers, samples, 1e-3, "file")
    for wrong in (
        lambda sample: [sample.answers[0] * 1.01],
        lambda sample: [sample.answers[0] + drawn.normal(0, 1, sample.answers[0].shape)],
        lambda sample: [sample.answers[0][:1]],
        lambda sample: [np.full_like(sample.answers[0], np.nan)],
        lambda sample: [],
    ):
        with pytest.raises(ExportError, match="does not answer as the model does"):
            same_answers.hold(wrong, samples, 1e-3, "file")


def test_an_export_that_does_not_run_is_refused() -> None:
    def broken(sample: Any) -> Any:
        raise RuntimeError("no kernel for this")

    with pytest.raises(ExportError, match="the file does not run here: RuntimeError: no kernel for this"):
        same_answers.hold(broken, takes(MODELS["dense"]()).samples, 1e-3, "file")


def test_a_model_that_takes_neither_draws_nor_the_tasks_examples_is_refused() -> None:
    class Picky(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            raise ValueError("not these")

        def compute_output_shape(self, shape: Any) -> Any:
            return shape

    def closed() -> Any:
        raise OSError("the shop is closed")

    given = keras.Input((4,))
    model = keras.Model(given, Picky()(given))
    with pytest.raises(ExportError, match=r"cannot be called on the task's own examples.*not these"):
        inputs_of(model, lambda: np.zeros((3, 4)))
    with pytest.raises(ExportError, match="OSError: the shop is closed"):
        inputs_of(model, closed)


@pytest.mark.slow
def test_what_tflite_has_no_operation_for_is_named() -> None:
    model = MODELS["text"]()
    with pytest.raises(ExportError, match=r"\(Flex\): .*StaticRegexReplace, StringLower, StringSplitV2.*savedmodel"):
        tflite.convert(model, takes(model))
