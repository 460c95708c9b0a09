"""A picture and numbers go in, a class and an amount come out, each with a loss and metrics of its own."""

import keras
import numpy as np


def build_model():
    picture, numbers = keras.Input((6, 6, 1), name="picture"), keras.Input((3,), name="numbers")
    seen = keras.layers.Flatten()(keras.layers.Conv2D(2, 3, activation="relu")(picture))
    both = keras.layers.Concatenate()([seen, numbers])
    outputs = {
        "kind": keras.layers.Dense(3, "softmax", name="kind")(both),
        "amount": keras.layers.Dense(1, name="amount")(both),
    }
    model = keras.Model([picture, numbers], outputs)
    model.compile(
        "adam",
        loss={"kind": "sparse_categorical_crossentropy", "amount": "mse"},
        loss_weights={"kind": 1.0, "amount": 0.5},
        metrics={"kind": ["accuracy"], "amount": ["mae"]},
    )
    return model


def load_partition(partition, partitions):
    rng = np.random.default_rng(partition)
    x = (rng.random((30, 6, 6, 1), "float32"), rng.random((30, 3), "float32"))
    y = {"kind": rng.integers(0, 3, 30), "amount": x[1].sum(axis=1)}
    train = tuple(each[10:] for each in x), {key: each[10:] for key, each in y.items()}
    return train, (tuple(each[:10] for each in x), {key: each[:10] for key, each in y.items()})
