"""Regression on features of very different sizes, normalised by a layer that was adapted to what is known of them."""

import keras
import numpy as np


def build_model():
    normalization = keras.layers.Normalization()
    normalization.adapt(features(np.random.default_rng(99), 200))
    model = keras.Sequential([keras.Input((3,)), normalization, keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])
    return model


def features(rng, number):
    return (rng.normal(size=(number, 3)) * [1000, 1, 0.01] + [5000, 0, 1]).astype("float32")


def load_partition(partition, partitions):
    x = features(np.random.default_rng(partition), 30)
    y = x[:, 0] / 1000 - x[:, 1]
    return (x[10:], y[10:]), (x[:10], y[:10])


def load_test():
    return load_partition(10**6, 1)[0]
