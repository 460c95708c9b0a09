"""What a model takes: the signature of its inputs, and samples of them, on which its exports are tried."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_common.errors import ExportError
from fl_common.models.frameworks import keras, tf
from fl_server.models.exports.reasons import reason

ROWS = 3
OPEN = 32  # steps, or pixels, where a model takes any number
WIDE = 50.0  # standard deviation of the second sample's numbers
WORDS = ("", "one", "Two words", "0")
KNOWN_WORDS = 50  # of the vocabulary of each layer that has one


@dataclass(frozen=True)
class Sample:
    """Inputs of ROWS examples, in the structure that the model is called with, and its answers with training off."""

    x: Any
    answers: list[NDArray[Any]]

    @property
    def rows(self) -> int:
        """The number of examples."""
        return int(keras.tree.flatten(self.x)[0].shape[0])

    def row(self, index: int) -> "Sample":
        """Return one example of them."""
        cut = slice(index, index + 1)
        return Sample(
            keras.tree.map_structure(lambda part: part[cut], self.x), [answer[cut] for answer in self.answers]
        )


@dataclass(frozen=True)
class Inputs:
    """The inputs of a model: nested tf.TensorSpecs for any number of examples, and at least one sample."""

    specs: Any
    samples: list[Sample]

    def names(self) -> list[str]:
        """Return the names of the inputs in a signature, in the order in which the structure is flattened."""
        return [spec.name for spec in keras.tree.flatten(self.specs)]

    def of_batch(self, size: int | None) -> Any:
        """Return the specs for `size` examples at a time."""
        return keras.tree.map_structure(
            lambda spec: tf.TensorSpec((size, *spec.shape[1:]), spec.dtype, spec.name), self.specs
        )


def inputs_of(model: keras.Model, examples: Callable[[], Any]) -> Inputs:
    """Return a model's inputs: declared ones with samples that are drawn, or else those of a task's `examples`.

    `examples` returns x of some examples; it is called only where the model does not declare what it takes, or cannot
    be called on what is drawn. Raises ExportError where neither gives a sample.
    """
    declared = _declared(model)
    if declared is not None:
        specs = keras.tree.map_structure(
            lambda each: tf.TensorSpec((None, *each.shape[1:]), each.dtype, each.name), declared
        )
        if samples := list(_drawn(model, specs)):
            return Inputs(specs, samples)
    x = _tensors(examples)
    specs = keras.tree.map_structure(_spec, x) if declared is None else specs
    try:
        return Inputs(_named(specs), [Sample(x, answers(model, x))])
    except Exception as error:
        raise ExportError(
            f"the model cannot be called on the task's own examples, so that no export can be tried: {reason(error)}"
        ) from error


@contextmanager
def without_tensor_float_32() -> Iterator[None]:
    """Have a GPU multiply in full float32 meanwhile: it may differ from a CPU by a thousandth otherwise."""
    config = tf.config.experimental
    before = config.tensor_float_32_execution_enabled()
    config.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        config.enable_tensor_float_32_execution(before)


@without_tensor_float_32()
def answers(model: Callable[..., Any], x: Any) -> list[NDArray[Any]]:
    """Return what a model answers with training off, flattened."""
    return [np.asarray(part) for part in keras.tree.flatten(model(x, training=False))]


def _declared(model: keras.Model) -> Any:
    """Return the keras.KerasTensors that a model is called with; None for one that learns its shapes from data."""
    if isinstance(model, keras.Sequential):
        return next(iter(getattr(model, "inputs", None) or ()), None)
    return getattr(model, "_inputs_struct", None)


def _drawn(model: keras.Model, specs: Any) -> Iterator[Sample]:
    """Yield samples on which the model can be called: of small numbers that also are tokens, and of wide ones."""
    words = [*WORDS, *_vocabulary(model)]
    for draw in (_small, _wide):
        rng = np.random.default_rng(0)
        try:
            x = keras.tree.map_structure(lambda spec, draw=draw, rng=rng: _draw(spec, draw, words, rng), specs)
            found = answers(model, x)
        except Exception:  # noqa: BLE001, S112  not every number is one that a model takes: a token, a month, a category
            continue
        if draw is _small or all(np.isfinite(part).all() for part in found if part.dtype.kind == "f"):
            yield Sample(x, found)


def _draw(spec: Any, draw: Callable[..., Any], words: list[str], rng: np.random.Generator) -> Any:
    shape = (ROWS, *(OPEN if size is None else size for size in spec.shape[1:]))
    if spec.dtype == tf.string:
        return tf.constant(rng.choice(words, shape))
    return tf.cast(draw(spec, shape, rng), spec.dtype)


def _small(spec: Any, shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    return rng.uniform(0, 2, shape)


def _wide(spec: Any, shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    return rng.normal(0, WIDE, shape) if spec.dtype.is_floating else _small(spec, shape, rng)


def _vocabulary(model: keras.Model) -> list[str]:
    found: list[str] = []
    for layer in model._flatten_layers():
        if hasattr(layer, "get_vocabulary"):
            found += [word for word in layer.get_vocabulary()[:KNOWN_WORDS] if isinstance(word, str)]
    return found


def _tensors(examples: Callable[[], Any]) -> Any:
    try:
        return keras.tree.map_structure(_tensor, examples())
    except Exception as error:
        raise ExportError(
            "the model does not say what inputs it takes, and the task's examples cannot be loaded, so that no export "
            f"can be tried: {reason(error)}. Give the model a keras.Input, or the task a load_test."
        ) from error


def _tensor(array: NDArray[Any]) -> Any:
    tensor = tf.constant(array)
    return tf.cast(tensor, keras.config.floatx()) if tensor.dtype.is_floating else tensor


def _spec(tensor: Any) -> Any:
    return tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype)


def _named(specs: Any) -> Any:
    """Return the specs with a name each: the key in a dictionary, or a number."""
    flat = keras.tree.flatten(specs)
    keys = sorted(specs) if isinstance(specs, dict) and len(specs) == len(flat) else range(len(flat))
    named = [
        tf.TensorSpec(spec.shape, spec.dtype, spec.name or (key if isinstance(key, str) else f"input_{key}"))
        for key, spec in zip(keys, flat, strict=True)
    ]
    return keras.tree.pack_sequence_as(specs, named)
