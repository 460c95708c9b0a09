"""W2's task: Fashion-MNIST from Debian's IDX files, and a small CNN: conv 3x3x16, pool, conv 3x3x32, pool, dense 10."""

from functools import cache
from pathlib import Path

from fl_common.data.examples import hold_out, take
from fl_common.data.partitions import split
from fl_common.models.frameworks import keras
from fl_common.tasks.builtin import idx

DATA = Path("/usr/share/datasets/fashion-mnist")


@cache
def data():
    return idx.load(DATA)


def build_model():
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((28, 28)),
            layers.Rescaling(1 / 255),
            layers.Reshape((28, 28, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(10, "softmax"),
        ]
    )
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@cache
def parts(partitions, settings):
    return split(data()[0][1], partitions, settings)


def load_partition(partition, partitions, settings):
    mine = take(data()[0], parts(partitions, settings)[partition])
    return hold_out(mine, settings.validation_fraction, settings.seed)


def load_test():
    return data()[1]
