"""A SavedModel of what a model computes with training off."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fl_common.errors import ExportError
from fl_common.models.frameworks import keras, tf
from fl_server.models.exports import same_answers
from fl_server.models.exports.inputs import Inputs, Sample
from fl_server.models.exports.reasons import reason

ENDPOINT = "serve"  # as keras.Model.export calls it


def write(model: keras.Model, inputs: Inputs, path: Path) -> None:
    """Write a SavedModel, load it, and hold it against the model. Raises ExportError where it cannot be had."""
    allowed = same_answers.tolerance(model)
    same_answers.refuse_random(model, inputs, allowed)
    save(model, inputs.specs, path)
    loaded = cache(lambda: tf.saved_model.load(str(path)))  # which holds the variables

    def answer(sample: Sample) -> list[Any]:
        return [np.asarray(part) for part in keras.tree.flatten(getattr(loaded(), ENDPOINT)(sample.x))]

    ones = [sample.row(0) for sample in inputs.samples]
    same_answers.hold(answer, [*inputs.samples, *ones], allowed, "SavedModel")


def save(model: keras.Model, specs: Any, path: Path) -> None:
    """Write the program that answers inputs of these nested tf.TensorSpecs. Layers that draw at random do not in it.

    It runs on machines of any kind: recurrent layers no longer ask for cuDNN where this one has a GPU.
    """
    for layer in model._flatten_layers():
        if getattr(layer, "use_cudnn", False):
            layer.use_cudnn = False
    archive = keras.export.ExportArchive()
    archive.track(model)
    try:
        archive.add_endpoint(ENDPOINT, lambda x: model(x, training=False), [specs])
        archive.write_out(str(path), verbose=False)
    except OSError:
        raise
    except Exception as error:
        raise ExportError(
            f"the model cannot be written as a program of TensorFlow's: {reason(error)}. "
            "Export it with --format keras or weights."
        ) from error
