"""A Keras file, loaded again and held against the model that was saved in it."""

from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

from fl_common.errors import ExportError
from fl_common.models.frameworks import keras
from fl_server.models.exports import same_answers
from fl_server.models.exports.inputs import Inputs, answers
from fl_server.models.exports.reasons import reason
from fl_server.models.keras_file import own_objects


def write(model: keras.Model, inputs: Inputs, path: Path, own: Mapping[str, Any]) -> None:
    """Save a model, load it, and hold weights and answers against it. Raises ExportError where they differ.

    own: names of the task's module, among them the functions that Keras must be given to load the file.
    """
    try:
        model.save(path)
        needed = {name: own[name] for name in own_objects(model) if name in own}
        loaded = keras.saving.load_model(path, custom_objects={**classes_of(model), **needed}, compile=False)
    except OSError:
        raise
    except Exception as error:
        raise ExportError(
            f"Keras cannot save the model and load it again: {reason(error)}. Give its classes a "
            "get_config, or export with --format weights."
        ) from error
    _compare(model, loaded, inputs)


def classes_of(model: keras.Model) -> dict[str, Any]:
    """Return the classes of a model's layers that are not Keras's own, by name."""
    kinds = {type(layer) for layer in model._flatten_layers()}
    return {kind.__name__: kind for kind in kinds if not kind.__module__.startswith("keras.")}


def _compare(model: keras.Model, loaded: keras.Model, inputs: Inputs) -> None:
    pairs = list(zip_longest(model.get_weights(), loaded.get_weights()))  # whose names Keras may count up
    if any(before is None or after is None or before.tobytes() != after.tobytes() for before, after in pairs):
        raise ExportError("the Keras file does not have the model's weights when it is loaded. Export its weights.")
    allowed = same_answers.tolerance(model)
    for sample in inputs.samples:
        if same_answers.apart(answers(model, sample.x), sample.answers) <= allowed:  # the model answers alike twice
            same_answers.hold(lambda each: answers(loaded, each.x), [sample], allowed, "Keras file")
