"""A task: what is learned, from which data. Resolved from a built-in name, a file or a module; built on both sides."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fl_common import modules
from fl_common.errors import DataError, TaskError
from fl_common.examples import Examples, count, normalised, take
from fl_common.fit import check_fit
from fl_common.settings import Settings
from fl_common.tasks import BUILT_IN, make
from fl_common.tasks.files import DataOptions

if TYPE_CHECKING:
    from fl_common.lean import keras

__all__ = ["DataOptions", "Examples", "Task", "build", "check_fit", "count", "resolve"]

BUNDLED = "fl_user_task"  # the package that a task file becomes when it travels in a Flower app bundle
REQUIRED = ("build_model", "load_partition")


Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Shared:
    """A data set of which every partition is rows: for a process that works on many partitions, and holds it once.

    rows(partition) -> the ascending rows of its (train, validation), the same examples as `load_partition` gives.
    """

    examples: Examples
    rows: Callable[[int], tuple[Rows, Rows]]


@dataclass(frozen=True)
class Task:
    """A compiled Keras model and its data. The loaders of a resolved task return NumPy arrays that were checked.

    load_partition(partition, partitions) -> (train, validation): train has at least one example, validation may have
    none. load_test() -> the held-out examples of the server, or None where the task has none. share(partitions) -> the
    data set that all partitions are rows of, or None where the task has none.
    """

    name: str
    build_model: Callable[[], "keras.Model"]
    load_partition: Callable[[int, int], tuple[Examples, Examples]]
    load_test: Callable[[], Examples] | None = None
    callbacks: Callable[[], list[Any]] | None = None
    share: Callable[[int], Shared] | None = None


def resolve(
    settings: Settings, *, data: str = "", data_options: DataOptions | None = None, trusted: bool = True
) -> Task:
    """Return the task that `settings.task` names: a built-in one, the path of a Python file, or an importable module.

    data: a file or folder of this client's own; its examples take the place of every partition.
    trusted=False: the name came from a server, and only built-in tasks may be run for it.
    A user's function that has a parameter named `settings` is given the settings.
    Raises TaskError where the task cannot be had, DataError where `data` cannot.
    """
    task = _named(settings, trusted)
    if data:
        own = _own_data(data, data_options or DataOptions(), settings)
        task = replace(task, load_partition=own, share=None)
    return replace(
        task,
        load_partition=partial(_checked_partition, task),
        load_test=task.load_test and partial(_checked_test, task),
    )


def build(task: Task, seed: int) -> "keras.Model":
    """Return the task's compiled model with its variables built: equal names and values for equal seeds.

    Forgets Keras's earlier names first (keras.utils.clear_session). A model that learns its shapes from data is called
    on one example of the test set, or of the first partition. Raises TaskError where it is no compiled keras.Model.
    """
    from fl_common.lean import keras

    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    model = task.build_model()
    if not isinstance(model, keras.Model):
        raise TaskError(
            f"build_model of task {task.name} must return a compiled keras.Model; got {type(model).__name__}."
        )
    if not model.compiled:
        raise TaskError(
            f"the model of task {task.name} is not compiled. Call model.compile(optimizer, loss) in build_model."
        )
    if not model.built:
        _build_on(model, task.load_test() if task.load_test else task.load_partition(0, 1)[0])
    return model


def _build_on(model: "keras.Model", examples: Examples) -> None:
    if count(examples) == 0:
        raise DataError("the model learns its shapes from data, but the task's data have no example.")
    try:
        model(take(examples, slice(0, 1))[0])
    except NotImplementedError as error:
        if not model.weights:
            raise TaskError(f"the model has no variables and cannot be called on data: {error}") from error
    except Exception as error:
        raise TaskError(
            f"the model cannot be called on the task's own data: {type(error).__name__}: {error}"
        ) from error


def _named(settings: Settings, trusted: bool) -> Task:
    if settings.task in BUILT_IN:
        return make(settings.task, settings)
    if not trusted:
        bundled = settings.task.removeprefix(f"{BUNDLED}.")
        own = settings.task if bundled == settings.task else f"./{bundled}.py"
        raise TaskError(
            f"this client has no task {settings.task!r}, and runs no code that a server names. "
            f"Start it with --task {own}, or use one of {', '.join(BUILT_IN)}."
        )
    return _from_module(settings.task, modules.load(settings.task), settings)


def _from_module(name: str, module: ModuleType, settings: Settings) -> Task:
    missing = [function for function in REQUIRED if not callable(getattr(module, function, None))]
    if missing:
        raise TaskError(
            f"task {name} lacks {' and '.join(missing)}. A task module defines build_model() -> compiled keras.Model, "
            "load_partition(partition, partitions) -> (x_train, y_train), (x_val, y_val), and may define load_test()."
        )
    bound = {
        key: _bound(name, key, getattr(module, key, None), settings) for key in (*REQUIRED, "load_test", "callbacks")
    }
    return Task(name, **bound)


def _bound(task: str, name: str, function: Callable[..., Any] | None, settings: Settings) -> Any:
    if function is not None and not callable(function):
        raise TaskError(
            f"{name} of task {task} must be a function; got {type(function).__name__}. Leave it out, or define it."
        )
    if function is None or "settings" not in inspect.signature(function).parameters:
        return function
    return partial(function, settings=settings)


def _own_data(data: str, options: DataOptions, settings: Settings) -> Callable[[int, int], tuple[Examples, Examples]]:
    from fl_common.tasks import files

    return lambda partition, partitions: files.load(Path(data), options, settings)


def _checked_partition(task: Task, partition: int, partitions: int) -> tuple[Examples, Examples]:
    source = f"load_partition({partition}, {partitions}) of task {task.name}"
    value = task.load_partition(partition, partitions)
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise DataError(f"{source} must return (x_train, y_train), (x_val, y_val); got {type(value).__name__}.")
    train = normalised(value[0], f"the training part of {source}")
    if count(train) == 0:
        raise DataError(f"{source} has no training example. Each partition needs at least one.")
    if value[1] is None:
        return train, take(train, slice(0, 0))
    return train, normalised(value[1], f"the validation part of {source}")


def _checked_test(task: Task) -> Examples:
    if task.load_test is None:
        raise TaskError(f"task {task.name} has no load_test.")
    return normalised(task.load_test(), f"load_test() of task {task.name}")
