"""The data of simulated clients: held once, in its own dtype; a client is rows of it."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise
from threading import RLock
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fl_client.training.trainer import LocalTrainer
from fl_common.data.examples import Examples, count, leaves, mapped
from fl_common.errors import DataError
from fl_common.models.data_check import check_fit
from fl_common.models.frameworks import keras, tf
from fl_common.tasks.task import Task

Rows = NDArray[np.int32]
Parts = tuple[Examples, Examples]  # training and validation
Part = tuple[Any, list[Rows]]  # resident tensors, and each client's rows of them

TRAIN, VALIDATION = 0, 1


class Pool(Protocol):
    """Gives the data of clients' partitions."""

    def wrong(self, partitions: Sequence[int]) -> dict[int, Exception]:
        """Return what is wrong with the data of partitions, loading them where they must be; {} where nothing is."""

    def counts(self, partitions: Sequence[int], which: int) -> list[int]:
        """Return how many examples partitions have; 0 for one with which something is wrong."""

    def part(self, partitions: Sequence[int], which: int) -> Part:
        """Return the data of partitions that were checked; `which` is TRAIN or VALIDATION."""


def pool_of(task: Task, trainer: LocalTrainer, partitions: int, limit: float) -> Pool:
    """Return the pool of a task split into `partitions`. limit: bytes of clients' own data that are kept."""
    if task.share is not None:
        return SharedPool(task, trainer, partitions)
    return OwnPool(task, trainer, partitions, limit)


class SharedPool:
    """One data set that every client's partition is rows of. Raises DataError where it does not fit the model."""

    def __init__(self, task: Task, trainer: LocalTrainer, partitions: int) -> None:
        share = task.share
        if share is None:
            raise ValueError("a task without a shared data set")
        shared = share(partitions)
        check_fit(trainer.model, shared.examples)
        self._rows = shared.rows
        self._known: dict[int, tuple[Rows, Rows]] = {}  # of clients that were asked: at most 4 bytes for each example
        self._data = resident(shared.examples)

    def wrong(self, partitions: Sequence[int]) -> dict[int, Exception]:
        """Nothing can be wrong: the whole was checked."""
        return {}

    def counts(self, partitions: Sequence[int], which: int) -> list[int]:
        """Return the numbers of these partitions' rows."""
        return [len(self._get(partition)[which]) for partition in partitions]

    def part(self, partitions: Sequence[int], which: int) -> Part:
        """Return the whole data set, and the rows of these partitions."""
        return self._data, [self._get(partition)[which] for partition in partitions]

    def _get(self, partition: int) -> tuple[Rows, Rows]:
        if partition not in self._known:
            train, validation = self._rows(partition)
            self._known[partition] = train.astype(np.int32), validation.astype(np.int32)
        return self._known[partition]


class OwnPool:
    """Partitions that a user's function loads one by one; those used last are kept, up to a limit of bytes."""

    def __init__(self, task: Task, trainer: LocalTrainer, partitions: int, limit: float) -> None:
        self._load: Callable[[int, int], Parts] = task.load_partition
        self._model = trainer.model
        self._partitions = partitions
        self._limit = limit
        self._kept: OrderedDict[int, Parts] = OrderedDict()
        self._bytes = 0
        self._lock = RLock()  # one thread trains, and one makes the next cohort ready

    def wrong(self, partitions: Sequence[int]) -> dict[int, Exception]:
        """Load and check partitions; a user's function may raise anything. What is new is checked all at once."""
        with self._lock:
            return self._wrong(partitions)

    def _wrong(self, partitions: Sequence[int]) -> dict[int, Exception]:
        errors: dict[int, Exception] = {}
        fresh: dict[int, Parts] = {}
        for partition in dict.fromkeys(partitions):
            if partition not in self._kept:
                try:
                    fresh[partition] = self._load(partition, self._partitions)
                except Exception as error:  # noqa: BLE001  it costs that client alone, as it does when deployed
                    errors[partition] = error
        if not self._fit(list(fresh.values())):
            for partition, parts in fresh.items():
                try:
                    self._check(parts)
                except Exception as error:  # noqa: BLE001
                    errors[partition] = error
        for partition in fresh.keys() - errors.keys():
            self._keep(partition, fresh[partition])
        return errors

    def counts(self, partitions: Sequence[int], which: int) -> list[int]:
        """Return the numbers of these partitions' examples, loading them where they must be."""
        wrong = self.wrong(partitions)
        return [0 if each in wrong else count(self._get(each)[which]) for each in partitions]

    def part(self, partitions: Sequence[int], which: int) -> Part:
        """Return the partitions' examples one behind the other."""
        with self._lock:
            parts = [self._get(partition)[which] for partition in partitions]
        starts = np.cumsum([0, *(count(part) for part in parts)])
        rows = [np.arange(start, stop, dtype=np.int32) for start, stop in pairwise(starts)]
        return resident(_joined(parts)), rows

    def _fit(self, fresh: list[Parts]) -> bool:
        """Say whether all partitions together fit the model: one check instead of one for each."""
        try:
            self._check(tuple(_joined(list(column)) for column in zip(*fresh, strict=True)))
        except Exception:  # noqa: BLE001  which of them it is, is found one by one
            return False
        return True

    def _check(self, parts: Any) -> None:
        for part in parts:
            check_fit(self._model, part)

    def _get(self, partition: int) -> Parts:
        if partition not in self._kept:  # it was let go
            self._keep(partition, self._load(partition, self._partitions))
        self._kept.move_to_end(partition)
        return self._kept[partition]

    def _keep(self, partition: int, parts: Parts) -> None:
        self._kept[partition] = parts
        self._bytes += _size(parts)
        while self._bytes > self._limit and len(self._kept) > 1:
            self._bytes -= _size(self._kept.popitem(last=False)[1])


def resident(examples: Examples) -> Any:
    """Return examples as tensors: floats as Keras's own fit takes them, all else in its own dtype."""
    return mapped(_tensor, examples)


def pick(data: Any, rows: Rows) -> Examples:
    """Return the rows of resident data as arrays."""
    chosen: Examples = mapped(lambda tensor: tensor.numpy()[rows], data)
    return chosen


def _tensor(array: NDArray[Any]) -> Any:
    return tf.convert_to_tensor(array.astype(keras.config.floatx(), copy=False) if array.dtype.kind == "f" else array)


def _joined(parts: Sequence[Examples]) -> Examples:
    for column in zip(*(list(leaves(part)) for part in parts), strict=True):
        if len(shapes := {array.shape[1:] for array in column}) > 1:
            raise DataError(
                f"the clients' examples have unlike shapes, {' and '.join(map(str, sorted(shapes)))}, but a simulation "
                "holds them in one array. Fill all up to one length, for example with .padded_batch(n, padded_shapes)."
            )
    columns = zip(*(list(leaves(part)) for part in parts), strict=True)
    whole: Examples = _filled(parts[0], iter([np.concatenate(column) for column in columns]))
    return whole


def _filled(tree: Any, arrays: Any) -> Any:
    if isinstance(tree, dict):
        filled = {key: _filled(tree[key], arrays) for key in sorted(tree)}
        return {key: filled[key] for key in tree}
    if isinstance(tree, tuple):
        return tuple(_filled(item, arrays) for item in tree)
    return next(arrays)


def _size(parts: Parts) -> int:
    return sum(array.nbytes for part in parts for array in leaves(part))
