"""A user's task: Dropout and Adam, clients of very unequal size, and BatchNorm where the model setting asks for it."""

from fl_common.data.examples import take
from fl_common.models.frameworks import keras
from fl_common.tasks.builtin import digits

SIZES = (1, 5, 33, 64, 150, 97)


def build_model(settings):
    layers = keras.layers
    norm = [layers.BatchNormalization()] if settings.model == "norm" else []
    body = [layers.Dense(16, "relu", kernel_regularizer="l2"), *norm, layers.Dropout(0.3)]
    model = keras.Sequential([keras.Input((64,)), *body, layers.Dense(10, "softmax")])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def load_partition(partition, partitions):
    train, test = digits.load()
    first = sum(SIZES[:partition])
    return take(train, slice(first, first + SIZES[partition])), take(test, slice(0, 10 * partition))


def load_test():
    return take(digits.load()[1], slice(0, 100))
