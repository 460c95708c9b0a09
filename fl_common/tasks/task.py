"""A task: what is learned, from which data. Resolved from a built-in name, a file or a module; built on both sides."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fl_common.data.class_weights import parsed, weighted
from fl_common.data.examples import Examples, count, normalised, take
from fl_common.errors import DataError, Shown, TaskError
from fl_common.models.data_check import check_fit
from fl_common.settings.schema import Settings
from fl_common.tasks import keras_settings, user_modules
from fl_common.tasks.builtin import BUILT_IN, make
from fl_common.tasks.client_data.files import DataOptions
from fl_common.tasks.user_modules import BUNDLED
from fl_common.trust.disclosure import type_of

if TYPE_CHECKING:
    from fl_common.models.frameworks import keras

__all__ = ["DataOptions", "Examples", "Task", "build", "check_fit", "count", "resolve"]

REQUIRED = ("build_model", "load_partition")
OPTIONAL = ("load_test", "callbacks", "prepare", "class_weight")


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
    data set that all partitions are rows of, or None where the task has none. prepare(frame) -> a pandas.DataFrame of
    numbers, from the table of a client's own, or None where the task has none. class_weight() -> weights of classes in
    training, which become sample weights. keras_settings: what its module sets for all of Keras, as a dtype policy.
    """

    name: str
    build_model: Callable[[], "keras.Model"]
    load_partition: Callable[[int, int], tuple[Examples, Examples]]
    load_test: Callable[[], Examples] | None = None
    callbacks: Callable[[], list[Any]] | None = None
    share: Callable[[int], Shared] | None = None
    prepare: Callable[[Any], Any] | None = None
    class_weight: Callable[[], Mapping[int, float]] | None = None
    keras_settings: Mapping[str, Any] = field(default_factory=dict)


def resolve(settings: Settings, *, trusted: bool = True) -> Task:
    """Return the task that `settings.task` names: a built-in one, the path of a Python file, or an importable module.

    trusted=False: the name came from a server, and only built-in tasks may be run for it.
    A user's function that has a parameter named `settings` is given the settings.
    Raises TaskError where the task cannot be had.
    """
    task = _named(settings, trusted)
    return replace(
        task,
        load_partition=partial(_checked_partition, task),
        load_test=task.load_test and partial(_checked_test, task),
    )


def build(task: Task, seed: int) -> "keras.Model":
    """Return the task's compiled model with its variables built: equal names and values for equal seeds.

    Forgets Keras's earlier names first (keras.utils.clear_session), but not what the task's module set for Keras. A
    model that learns its shapes from data is called on one example of the test set, or of the first partition. Raises
    TaskError where it is no compiled keras.Model, or has no weight.
    """
    from fl_common.models.frameworks import keras

    keras.utils.clear_session()
    keras_settings.put(task.keras_settings)
    keras.utils.set_random_seed(seed)
    model = task.build_model()
    if not isinstance(model, keras.Model):
        raise TaskError(
            "build_model of task {task} must return a compiled keras.Model; got {kind}.",
            task=task.name,
            kind=type(model).__name__,
        )
    if not model.compiled:
        raise TaskError(
            "the model of task {task} is not compiled. Call model.compile(optimizer, loss) in build_model.",
            task=task.name,
        )
    _refuse_fixed_batches(task, model)
    if not model.built or not model.weights:  # a subclass's inherited build() makes none
        _build_on(model, task.load_test() if task.load_test else task.load_partition(0, 1)[0])
    if not model.weights:
        raise TaskError(
            "the model of task {task} has no weights, so there is nothing to train or to send. Give it a layer that "
            "has some, such as Dense.",
            task=task.name,
        )
    return model


def with_class_weights(task: Task, train: Examples, source: str) -> Examples:
    """Return a training part with the weights of the task's classes, where it has any."""
    return train if task.class_weight is None else weighted(train, parsed(task.class_weight(), task.name), source)


def _refuse_fixed_batches(task: Task, model: "keras.Model") -> None:
    """Raise TaskError for a model whose steps must all be of one size, or that keeps its state between them.

    The last step of an epoch has what is left of a client's examples; and a state would go with the weights to others.
    """
    for tensor in getattr(model, "inputs", None) or ():
        if tensor.shape[0] is not None:
            raise TaskError(
                "the model of task {task} takes batches of exactly {size} examples, but clients have any number. Give "
                "its input shape instead of batch_shape and batch_size.",
                task=task.name,
                size=Shown(tensor.shape[0]),
            )
    for layer in model._flatten_layers():
        if getattr(layer, "stateful", False):
            raise TaskError(
                "layer {layer} of task {task} is stateful: what it keeps from batch to batch would travel with the "
                "weights from client to client. Leave stateful=True out.",
                layer=layer.name,
                task=task.name,
            )


def checked_test(task: Task, model: "keras.Model") -> Examples:
    """Return the task's test set, compared with a model as the clients' data are. Raises DataError where it differs."""
    if task.load_test is None:
        raise DataError("task {task} has no load_test.", task=task.name)
    examples = task.load_test()
    try:
        check_fit(model, examples)
    except DataError as error:
        raise DataError(
            "load_test() of task {task} does not fit the model: {error}", task=task.name, error=error
        ) from error
    return examples


def _build_on(model: "keras.Model", examples: Examples) -> None:
    if count(examples) == 0:
        raise DataError.shared("the model learns its shapes from data, but the task's data have no example.")
    try:
        model(take(examples, slice(0, 1))[0])
    except NotImplementedError as error:
        if not model.weights:
            raise TaskError("the model has no variables and cannot be called on data: {error}", error=error) from error
    except Exception as error:
        raise TaskError(
            "the model cannot be called on the task's own data: {kind}: {error}",
            kind=Shown(type_of(error)),
            error=error,
        ) from error


def _named(settings: Settings, trusted: bool) -> Task:
    if settings.task in BUILT_IN:
        return make(settings.task, settings)
    if not trusted:
        bundled = settings.task.removeprefix(f"{BUNDLED}/")
        own = settings.task if bundled == settings.task else f"./{bundled}"
        raise TaskError(
            "this client has no task {task!r}, and runs no code that a server names. "
            f"Start it with --task {{own}}, or use one of {', '.join(BUILT_IN)}.",
            task=Shown(settings.task),
            own=Shown(own),
        )
    return _from_module(settings.task, user_modules.load(settings.task), settings)


def _from_module(name: str, module: ModuleType, settings: Settings) -> Task:
    missing = [function for function in REQUIRED if not callable(getattr(module, function, None))]
    if missing:
        raise TaskError(
            "task {name} lacks {missing}. A task module defines build_model() -> compiled keras.Model, "
            "load_partition(partition, partitions) -> (x_train, y_train), (x_val, y_val), and may define load_test().",
            name=name,
            missing=Shown(" and ".join(missing)),
        )
    bound = {key: _bound(name, key, getattr(module, key, None), settings) for key in (*REQUIRED, *OPTIONAL)}
    return Task(name, **bound, keras_settings=keras_settings.of(module))


def _bound(task: str, name: str, function: Callable[..., Any] | None, settings: Settings) -> Any:
    if function is not None and not callable(function):
        raise TaskError(
            "{name} of task {task} must be a function; got {kind}. Leave it out, or define it.",
            name=Shown(name),
            task=task,
            kind=type(function).__name__,
        )
    if function is None:
        return None
    if "settings" in inspect.signature(function).parameters:
        function = partial(function, settings=settings)
    return partial(_travelled, function) if task.startswith(f"{BUNDLED}/") else function


def _travelled(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of a task that came in a bundle; say which file of its folder stayed behind, if one did."""
    try:
        return function(*arguments)
    except FileNotFoundError as error:
        if behind := user_modules.left_behind(error):
            raise TaskError(behind) from error
        raise


def _checked_partition(task: Task, partition: int, partitions: int) -> tuple[Examples, Examples]:
    source = f"load_partition({partition}, {partitions}) of task {task.name}"
    value = task.load_partition(partition, partitions)
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise DataError(
            "{source} must return (x_train, y_train), (x_val, y_val); got {kind}.",
            source=source,
            kind=type(value).__name__,
        )
    train = normalised(value[0], f"the training part of {source}")
    if count(train) == 0:
        raise DataError("{source} has no training example. Each partition needs at least one.", source=source)
    train = with_class_weights(task, train, f"the training part of {source}")
    if value[1] is None:
        return train, take(train, slice(0, 0))
    return train, normalised(value[1], f"the validation part of {source}")


def _checked_test(task: Task) -> Examples:
    if task.load_test is None:
        raise TaskError("task {task} has no load_test.", task=task.name)
    return normalised(task.load_test(), f"load_test() of task {task.name}")
