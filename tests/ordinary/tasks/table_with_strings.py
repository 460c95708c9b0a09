"""A table with numbers, words and a category, each an input of its own; Keras turns words into numbers."""

import keras
import numpy as np

CITIES = ["Berlin", "Lyon", "Turin"]


def build_model():
    age, city = keras.Input((1,), name="age"), keras.Input((1,), name="city", dtype="string")
    ward = keras.Input((1,), name="ward", dtype="int64")
    parts = [
        keras.layers.Rescaling(1 / 100)(age),
        keras.layers.StringLookup(vocabulary=CITIES, output_mode="one_hot")(city),
        keras.layers.CategoryEncoding(num_tokens=4, output_mode="one_hot")(ward),
    ]
    hidden = keras.layers.Dense(8, "relu")(keras.layers.Concatenate()(parts))
    model = keras.Model({"age": age, "city": city, "ward": ward}, keras.layers.Dense(1, "sigmoid")(hidden))
    model.compile("adam", "binary_crossentropy", metrics=["accuracy", keras.metrics.AUC(name="auc")])
    return model


def load_partition(partition, partitions):
    rng = np.random.default_rng(partition)
    age, city = rng.integers(20, 90, 30).astype("float32"), rng.choice([*CITIES, "Oslo"], 30)
    x = {"age": age, "city": city, "ward": rng.integers(0, 4, 30)}
    y = (age > 50) ^ (city == "Lyon")
    return ({key: each[10:] for key, each in x.items()}, y[10:]), ({key: each[:10] for key, each in x.items()}, y[:10])
