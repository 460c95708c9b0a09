"""Models of every kind that people export, each a function that builds it."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fl_common.models.frameworks import keras, tf

layers = keras.layers
MODELS: dict[str, Callable[[], Any]] = {}


def _kept(function: Callable[[], Any]) -> Callable[[], Any]:
    MODELS[function.__name__] = function
    return function


@_kept
def dense() -> Any:
    return keras.Sequential([keras.Input((4,)), layers.Dense(3, "softmax")])


@_kept
def augmented() -> Any:
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Rescaling(1 / 255),
            layers.RandomFlip(),
            layers.RandomRotation(0.2),
            layers.RandomZoom(0.2),
            layers.RandomContrast(0.2),
            layers.Conv2D(2, 3),
            layers.SpatialDropout2D(0.5),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )


@_kept
def noisy() -> Any:
    noise = [layers.GaussianNoise(1.0), layers.GaussianDropout(0.5), layers.AlphaDropout(0.5), layers.Dropout(0.5)]
    return keras.Sequential([keras.Input((4,)), *noise, layers.Dense(3)])


@_kept
def dropout_that_is_always_on() -> Any:
    given = keras.Input((4,))
    return keras.Model(given, layers.Dense(3)(layers.Dropout(0.5)(given, training=True)))


@_kept
def lstm() -> Any:
    return keras.Sequential([keras.Input((6, 3)), layers.LSTM(4), layers.Dense(1)])


@_kept
def lstm_of_any_length() -> Any:
    return keras.Sequential([keras.Input((None, 3)), layers.LSTM(4), layers.Dense(1)])


@_kept
def stacked_gru() -> Any:
    gru = [layers.GRU(4, return_sequences=True), layers.GRU(4, recurrent_dropout=0.2)]
    return keras.Sequential([keras.Input((6, 3)), *gru, layers.Dense(1)])


@_kept
def bidirectional_with_a_mask() -> Any:
    both = layers.Bidirectional(layers.LSTM(4))
    return keras.Sequential([keras.Input((6,)), layers.Embedding(20, 4, mask_zero=True), both, layers.Dense(1)])


@_kept
def bidirectional_gru() -> Any:
    both = layers.Bidirectional(layers.GRU(4, return_sequences=True))
    return keras.Sequential([keras.Input((6, 3)), both, layers.TimeDistributed(layers.Dense(2))])


@_kept
def convolutional_lstm() -> Any:
    return keras.Sequential([keras.Input((4, 6, 6, 1)), layers.ConvLSTM2D(2, 3), layers.Flatten(), layers.Dense(1)])


@_kept
def two_inputs_and_outputs() -> Any:
    numbers, tokens = keras.Input((4,), name="numbers"), keras.Input((3,), name="tokens", dtype="int32")
    both = layers.Concatenate()([layers.Dense(4)(numbers), layers.Flatten()(layers.Embedding(10, 2)(tokens))])
    return keras.Model([numbers, tokens], [layers.Dense(1, name="one")(both), layers.Dense(2, name="two")(both)])


@_kept
def dictionaries_with_strings() -> Any:
    number, word = keras.Input((4,), name="number"), keras.Input((1,), name="word", dtype="string")
    looked_up = layers.StringLookup(vocabulary=["x", "y"], output_mode="one_hot")(word)
    both = layers.Concatenate()([number, looked_up])
    return keras.Model({"number": number, "word": word}, {"b": layers.Dense(1)(both), "a": layers.Dense(2)(both)})


@_kept
def many_outputs() -> Any:
    given = keras.Input((2,))
    return keras.Model(
        given, [layers.Dense(1, bias_initializer=keras.initializers.Constant(n))(given) for n in range(12)]
    )


@_kept
def bytes_as_pixels() -> Any:
    given = keras.Input((6, 6, 1), dtype="uint8")
    return keras.Model(given, layers.Dense(2)(layers.Flatten()(layers.Rescaling(1 / 255)(given))))


@_kept
def normalised() -> Any:
    normalization = layers.Normalization()
    normalization.adapt(np.random.default_rng(0).normal(5, 3, (20, 4)))
    return keras.Sequential([keras.Input((4,)), normalization, layers.Dense(1)])


@_kept
def attention() -> Any:
    given = keras.Input((6,))
    words = layers.Embedding(20, 8)(given)
    seen = layers.LayerNormalization()(words + layers.MultiHeadAttention(2, 4, dropout=0.2)(words, words))
    return keras.Model(given, layers.Dense(2)(layers.GlobalAveragePooling1D()(seen)))


@_kept
def mixed_precision() -> Any:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        middle = [layers.Conv2D(4, 3, activation="relu"), layers.BatchNormalization(), layers.LSTM(3)]
        end = [layers.Dense(3), layers.Activation("softmax", dtype="float32")]
        return keras.Sequential([keras.Input((8, 8, 1)), *middle[:2], layers.Reshape((36, 4)), middle[2], *end])
    finally:
        keras.config.set_dtype_policy("float32")


@_kept
def half_precision() -> Any:
    return keras.Sequential([keras.Input((8,)), layers.Dense(3, dtype="float16"), layers.Dense(2, dtype="bfloat16")])


@_kept
def subclassed() -> Any:
    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.flip, self.flatten, self.dense = layers.RandomFlip(), layers.Flatten(), layers.Dense(2)

        def call(self, x: Any) -> Any:
            return self.dense(self.flatten(self.flip(x["picture"]))) + tf.cast(x["number"], "float32")

    net = Net()
    net(examples_of_subclassed())
    return net


def examples_of_subclassed() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {"picture": rng.random((3, 8, 8, 3)), "number": np.arange(3)[:, None]}


@_kept
def text() -> Any:
    words = layers.TextVectorization(max_tokens=20, output_sequence_length=5, vocabulary=["good", "bad", "film"])
    given = keras.Input((1,), dtype="string")
    return keras.Sequential([given, words, layers.Embedding(20, 4), layers.GlobalAveragePooling1D(), layers.Dense(1)])
