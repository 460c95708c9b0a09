"""A task of real digits for tests of the server: unequal parts, BatchNorm's statistics and an integer variable."""

from fl_common.data.examples import take
from fl_common.models.frameworks import keras
from fl_common.tasks.builtin import digits

layers = keras.layers


@keras.saving.register_keras_serializable(package="tests")
class Counter(layers.Layer):
    """Counts the batches it was trained on: a variable that is not averaged."""

    def build(self, shape):
        self.batches = self.add_weight(name="batches", shape=(), dtype="int32", initializer="zeros", trainable=False)

    def call(self, x, training=False):
        if training:
            self.batches.assign_add(1)
        return x


def build_model():
    body = [layers.Dense(12, "relu"), layers.BatchNormalization(), Counter(), layers.Dropout(0.1)]
    model = keras.Sequential([keras.Input((64,)), *body, layers.Dense(10, "softmax")])
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def load_partition(partition, partitions):
    train, _ = digits.load()
    first = sum(range(partition + 1)) * 60
    return take(train, slice(first, first + 60 * (partition + 1))), take(train, slice(1200, 1240))


def load_test():
    return take(digits.load()[1], slice(0, 120))
