"""The run's model.keras: whether Keras can write it, writing it whole or not at all, and what it takes to load it.

The checkpoints are the run's result; this file is a convenience, and a run without it has not failed.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fl_common.errors import StoreError
from fl_common.messages.arrays import Arrays
from fl_common.models.frameworks import keras
from fl_common.models.weights import assign
from fl_server.store.disk.whole_writes import plainly


def save(model: keras.Model, arrays: Arrays, path: Path) -> Path:
    """Save the model with these weights, whole or not at all, and return the path."""
    assign(model, arrays)
    if model.optimizer is not None and not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)  # Keras warns where it loads a file without its variables
    temporary = path.with_name(f".{path.name}").with_suffix(".keras")
    try:
        with plainly(f"save {path}"):
            model.save(temporary)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def written(model: keras.Model, arrays: Arrays, path: Path) -> dict[str, Any]:
    """Save the model, and return what an event says of it: "model", or null with "model_error"; "custom_objects".

    Raises StoreError where the disk refuses.
    """
    try:
        return {"model": str(save(model, arrays, path)), **_told(own_objects(model))}
    except StoreError:
        raise
    except Exception as error:  # noqa: BLE001  a user's get_config may raise anything
        return {"model": None, "model_error": _reason(error)}


def refusal(model: keras.Model) -> str:
    """Return why Keras could not write the model; "" where it can."""
    try:
        _config(model)
    except Exception as error:  # noqa: BLE001
        return _reason(error)
    return ""


def own_objects(model: keras.Model) -> list[str]:
    """Return the names of classes and functions that load_model must be given: those not registered with Keras."""
    return sorted(set(_unregistered(_config(model))))


def _told(names: list[str]) -> dict[str, list[str]]:
    return {"custom_objects": names} if names else {}


def _config(model: keras.Model) -> Any:
    config = keras.saving.serialize_keras_object(model)
    json.dumps(config)
    return config


def _unregistered(config: Any) -> Iterator[str]:
    if isinstance(config, dict):
        name, registered = config.get("class_name"), config.get("registered_name")
        if name == "function" and ">" not in str(registered):
            yield str(config["config"])
        elif isinstance(name, str) and registered == name:
            yield name
        for value in config.values():
            yield from _unregistered(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _unregistered(value)


def _reason(error: Exception) -> str:
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first:.300}" if first else type(error).__name__
