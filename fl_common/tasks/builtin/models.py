"""The models of the built-in tasks: the seed article's `mlp`, and `2nn` and `cnn` of McMahan et al. 2017.

McMahan et al., arXiv:1602.05629, section 3. All are compiled with SGD and sparse categorical cross-entropy.
"""

import difflib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from fl_common.errors import Shown, TaskError

if TYPE_CHECKING:
    from fl_common.models.frameworks import keras

LEARNING_RATE = 0.1


def builder(
    name: str,
    shape: tuple[int, ...],
    classes: int,
    *,
    image: tuple[int, ...] = (),
    scale: float = 1.0,
    learning_rate: float | None = None,
) -> Callable[[], "keras.Model"]:
    """Return a function that builds and compiles the model `name` for examples of `shape`.

    `image` is the (height, width, channels) that the cnn sees, where it is not `shape`. `scale` is what the first
    layer multiplies inputs with: 1/255 for uint8 pictures, so that clients keep them small in memory.
    `learning_rate` is SGD's, where it is not LEARNING_RATE.
    Raises TaskError where the name is unknown.
    """
    if name not in LAYERS:
        near = difflib.get_close_matches(name, LAYERS, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(LAYERS)}."
        raise TaskError(
            "unknown model {name!r}. {hint} Set it with --set model=...", name=Shown(name), hint=Shown(hint)
        )
    return partial(_compiled, name, shape, classes, image or shape, scale, learning_rate or LEARNING_RATE)


def _compiled(
    name: str, shape: tuple[int, ...], classes: int, image: tuple[int, ...], scale: float, learning_rate: float
) -> "keras.Model":
    from fl_common.models.frameworks import keras

    scaled = [keras.layers.Rescaling(scale, name="scale")] if scale != 1.0 else []
    model = keras.Sequential(
        [
            keras.Input(shape),
            *scaled,
            *LAYERS[name](image),
            keras.layers.Dense(classes, activation="softmax", name="output"),
        ],
        name=f"model_{name}",
    )
    model.compile(keras.optimizers.SGD(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def _mlp(_: tuple[int, ...]) -> list[Any]:
    from fl_common.models.frameworks import keras

    return [keras.layers.Flatten(name="flat"), keras.layers.Dense(10, activation="relu", name="hidden")]


def _2nn(_: tuple[int, ...]) -> list[Any]:
    """Two hidden layers of 200 units: 199,210 parameters on 784 inputs and 10 classes."""
    from fl_common.models.frameworks import keras

    hidden = [keras.layers.Dense(200, activation="relu", name=f"hidden_{number}") for number in (1, 2)]
    return [keras.layers.Flatten(name="flat"), *hidden]


def _cnn(image: tuple[int, ...]) -> list[Any]:
    """Two 5x5 convolutions, each pooled 2x2, and 512 units: 1,663,370 parameters on 28x28x1 and 10 classes."""
    from fl_common.models.frameworks import keras

    blocks: list[Any] = [keras.layers.Reshape(image, name="image")]
    for number, filters in ((1, 32), (2, 64)):
        blocks.append(keras.layers.Conv2D(filters, 5, padding="same", activation="relu", name=f"conv_{number}"))
        blocks.append(keras.layers.MaxPooling2D(2, name=f"pool_{number}"))
    return [*blocks, keras.layers.Flatten(name="flat"), keras.layers.Dense(512, activation="relu", name="hidden")]


LAYERS: dict[str, Callable[[tuple[int, ...]], list[Any]]] = {"mlp": _mlp, "2nn": _2nn, "cnn": _cnn}
