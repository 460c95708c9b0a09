"""Early stopping on each client's own validation part, as in a script without a federation."""

import keras
import numpy as np


def build_model():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2, "softmax")])
    model.compile(keras.optimizers.Adam(0.05), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def callbacks():
    return [keras.callbacks.EarlyStopping(monitor="val_loss", patience=1, restore_best_weights=True)]


def load_partition(partition, partitions):
    x = np.random.default_rng(partition).normal(size=(30, 4)).astype("float32")
    y = (x[:, 0] > 0).astype("int64")
    return (x[10:], y[10:]), (x[:10], y[:10])
