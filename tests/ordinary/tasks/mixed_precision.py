"""Mixed precision for the whole file, as Keras's guide sets it, with a softmax in float32 at the end."""

import keras
import numpy as np

keras.mixed_precision.set_global_policy("mixed_float16")


def build_model():
    layers = [
        keras.layers.Conv2D(4, 3, activation="relu"),
        keras.layers.BatchNormalization(),
        keras.layers.Flatten(),
        keras.layers.Dense(2),
        keras.layers.Activation("softmax", dtype="float32"),
    ]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def load_partition(partition, partitions):
    rng = np.random.default_rng(partition)
    y = rng.integers(0, 2, 30)
    x = (rng.normal(size=(30, 8, 8, 1)) + y[:, None, None, None]).astype("float32")
    return (x[10:], y[10:]), (x[:10], y[:10])
