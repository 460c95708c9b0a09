"""The workloads' models in Keras, for the peers that train Keras models; inputs are float32 pictures in [0, 1]."""

from typing import Any


def build(keras: Any, name: str, weights: list[Any] | None = None) -> Any:
    """Return the uncompiled model `name`. keras: Keras 2 or 3. weights: in the order of the plan."""
    layers = keras.layers
    model = keras.Sequential([layers.InputLayer((28, 28)), *LAYERS[name](layers)])
    if weights is not None:
        model.set_weights(weights)
    return model


def _mlp(layers: Any) -> list[Any]:
    return [layers.Flatten(), layers.Dense(10, "relu"), layers.Dense(10, "softmax")]


def _small_cnn(layers: Any) -> list[Any]:
    blocks: list[Any] = [layers.Reshape((28, 28, 1))]
    for filters in (16, 32):
        blocks += [layers.Conv2D(filters, 3, activation="relu"), layers.MaxPooling2D()]
    return [*blocks, layers.Flatten(), layers.Dense(10, "softmax")]


def _cnn(layers: Any) -> list[Any]:
    blocks: list[Any] = [layers.Reshape((28, 28, 1))]
    for filters in (32, 64):
        blocks += [layers.Conv2D(filters, 5, padding="same", activation="relu"), layers.MaxPooling2D()]
    return [*blocks, layers.Flatten(), layers.Dense(512, "relu"), layers.Dense(10, "softmax")]


LAYERS = {"mlp": _mlp, "small_cnn": _small_cnn, "cnn": _cnn}
