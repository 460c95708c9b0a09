"""Small Keras models of every kind that a user may bring, and digits for them."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from fl_client.training.trainer import LocalTrainer
from fl_common.data.examples import Examples, take
from fl_common.models.frameworks import keras, tf
from fl_common.models.weights import weights_of
from fl_common.settings.schema import Settings
from fl_common.tasks.builtin import digits
from fl_common.tasks.task import Task

layers = keras.layers


@cache
def some_digits(examples: int = 150) -> Examples:
    return take(digits.load()[0], slice(0, examples))


def weighted(examples: Examples) -> Examples:
    weights = np.random.default_rng(3).uniform(0.2, 2.0, len(examples[1])).astype("float32")
    return examples[0], examples[1], weights


def task_of(build: Callable[[], Any], data: Examples | None = None, callbacks: Any = None) -> Task:
    data = some_digits() if data is None else data
    return Task("small", build, lambda partition, partitions: (data, take(data, slice(0, 50))), None, callbacks)


def trainer_of(build: Callable[[], Any], data: Examples | None = None, callbacks: Any = None, **settings: Any) -> Any:
    settings = {"batch_size": 32, "local_epochs": 2, "seed": 5} | settings
    return LocalTrainer(task_of(build, data, callbacks), Settings(**settings))


def start_of(trainer: LocalTrainer) -> dict[str, Any]:
    return weights_of(trainer.model)


def compiled(model: Any, optimizer: Any = None, **options: Any) -> Any:
    options = {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]} | options
    model.compile(optimizer=optimizer or keras.optimizers.SGD(0.1), **options)
    return model


def dense(optimizer: Any = None, **options: Any) -> Any:
    hidden = [layers.Dense(10, "relu"), layers.Dense(10, "softmax")]
    return compiled(keras.Sequential([keras.Input((64,)), *hidden]), optimizer, **options)


def noisy() -> Any:
    body = [layers.Dense(16, "relu"), layers.BatchNormalization(), layers.Dropout(0.3), layers.GaussianNoise(0.1)]
    return compiled(keras.Sequential([keras.Input((64,)), *body, layers.Dense(10, "softmax")]))


def regularised() -> Any:
    hidden = layers.Dense(10, "relu", kernel_regularizer="l2", activity_regularizer=keras.regularizers.L1(1e-4))
    return compiled(keras.Sequential([keras.Input((64,)), hidden, layers.Dense(10, "softmax")]))


def two_by_two() -> Any:
    top, bottom = keras.Input((32,), name="top"), keras.Input((32,), name="bottom")
    joined = layers.Dense(12, "relu", name="joined")(layers.Concatenate()([top, bottom]))
    outputs = {
        "digit": layers.Dense(10, "softmax", name="digit")(joined),
        "odd": layers.Dense(1, "sigmoid", name="odd")(joined),
    }
    losses = {"digit": "sparse_categorical_crossentropy", "odd": "binary_crossentropy"}
    metrics = {"digit": ["accuracy"], "odd": ["accuracy"]}
    model = keras.Model({"top": top, "bottom": bottom}, outputs)
    return compiled(model, loss=losses, metrics=metrics, loss_weights={"digit": 1.0, "odd": 0.5})


def two_by_two_digits() -> Examples:
    x, y = some_digits()
    return {"top": x[:, :32], "bottom": x[:, 32:]}, {"digit": y, "odd": (y % 2).astype("float32")[:, None]}


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.norm = layers.Dense(12, "relu"), layers.BatchNormalization()
        self.drop, self.top = layers.Dropout(0.2), layers.Dense(10)

    def call(self, x: Any, training: bool = False) -> Any:
        return self.top(self.drop(self.norm(self.hidden(x), training=training), training=training))


def subclassed() -> Any:
    return compiled(Subclassed(), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))


class TwoOptimizers(keras.Model):
    """Trains its two halves with an optimizer each, built only when the first step is traced."""

    def __init__(self) -> None:
        super().__init__()
        self.lower, self.drop, self.upper = layers.Dense(12, "relu"), layers.Dropout(0.2), layers.Dense(10)
        self.seen = keras.metrics.Mean(name="seen")

    def compile(self, lower: Any, upper: Any) -> None:
        super().compile()
        self.lower_optimizer, self.both = lower, {"upper": upper}
        self.objective = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def call(self, x: Any, training: bool = False) -> Any:
        return self.upper(self.drop(self.lower(x), training=training))

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape(persistent=True) as tape:
            loss = self.objective(y, self(x, training=True))
        for optimizer, part in ((self.lower_optimizer, self.lower), (self.both["upper"], self.upper)):
            pairs = zip(tape.gradient(loss, part.trainable_weights), part.trainable_weights, strict=True)
            optimizer.apply_gradients(pairs)
        self.seen.update_state(loss)
        return {"seen": self.seen.result()}

    def test_step(self, data: Any) -> Any:
        x, y = data
        self.seen.update_state(self.objective(y, self(x, training=False)))
        return {"seen": self.seen.result()}


def two_optimizers() -> Any:
    model = TwoOptimizers()
    model.compile(keras.optimizers.Adam(0.01), keras.optimizers.Adagrad(0.05))
    return model


class Jitter(layers.Layer):
    """Noise from Keras's global generator, from tf.random's stateful kernels, or from a tf.random.Generator."""

    def __init__(self, kind: str, always: bool) -> None:
        super().__init__()
        self.always = always
        self.generator = tf.random.Generator.from_seed(4)
        self.draw = {"keras": keras.random.normal, "tf": tf.random.normal, "generator": self.generator.normal}[kind]

    def call(self, x: Any, training: bool = False) -> Any:
        return x + 0.1 * self.draw(tf.shape(x)) if training or self.always else x


def jittered(kind: str, always: bool = False) -> Any:
    return compiled(keras.Sequential([keras.Input((64,)), Jitter(kind, always), layers.Dense(10, "softmax")]))
