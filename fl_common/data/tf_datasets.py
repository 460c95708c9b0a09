"""A tf.data.Dataset, read to its end into arrays: batched or not, padded batches and those of buckets included."""

import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_common.data.examples import EXPECTED, leaves, mapped
from fl_common.errors import DataError
from fl_common.models.frameworks import tf

log = logging.getLogger(__name__)

SHARE = 2  # of the memory that is free, what a dataset may take: one part in so many
PATIENCE_SECONDS = 60.0  # after which it is said that a dataset is still being read


def read(dataset: Any, source: str) -> Any:
    """Return one array for each component of a finite dataset; batches of unlike widths are filled up, as padded_batch
    was told to, or else with zeros.

    Raises DataError where it does not end, cannot be read, or is ragged.
    """
    if int(dataset.cardinality()) == tf.data.INFINITE_CARDINALITY:
        raise DataError("{source} is an endless tf.data.Dataset; end it, for example with .take(n).", source=source)
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        raise DataError(f"{{source}} must be {EXPECTED}; got a dataset of {{spec}}.", source=source, spec=spec)
    if any(not isinstance(each, tf.TensorSpec) for each in leaves(spec)):
        raise DataError(
            "{source} is a tf.data.Dataset of ragged or sparse tensors, but needs one shape for every example. Make "
            "it dense, for example with .map(lambda x, y: (x.to_tensor(), y)).",
            source=source,
        )
    batched = dataset if _is_batched(dataset) else dataset.batch(1024)
    try:
        batches = list(_bounded(batched.as_numpy_iterator(), source))
    except tf.errors.OpError as error:
        raise DataError(
            "{source}: the tf.data.Dataset cannot be read: {error}. Where its elements have unlike shapes, batch them "
            "with .padded_batch(n).",
            source=source,
            error=error.message,
        ) from None
    if not batches:
        return mapped(lambda item: np.zeros((0, *_example_shape(item, dataset)), item.dtype.as_numpy_dtype), spec)
    columns = zip(*(leaves(batch) for batch in batches), strict=True)
    fillers = _fillers(dataset) or [None] * len(list(leaves(spec)))
    whole = iter([_joined(column, filler, source) for column, filler in zip(columns, fillers, strict=True)])
    return _filled(batches[0], whole)


def _bounded(batches: Iterator[Any], source: str) -> Iterator[Any]:
    """Yield batches while they fit in memory: a dataset may be endless without knowing it."""
    room, taken, examples, told = _room(), 0, 0, time.monotonic() + PATIENCE_SECONDS
    for batch in batches:
        arrays = list(leaves(batch))
        taken += sum(array.nbytes for array in arrays)
        examples += len(arrays[0])
        if taken > room:
            raise DataError(
                "{source}: the tf.data.Dataset gave {examples} examples of {taken:.1f} GB, and goes on; all are held "
                "in memory, half of which is used up. Where it is endless, end it with .take(n).",
                source=source,
                examples=examples,
                taken=taken / 1e9,
            )
        if time.monotonic() > told:
            log.warning("%s: %d examples were read and there are more; is the dataset endless?", source, examples)
            told = time.monotonic() + PATIENCE_SECONDS
        yield batch


def _room() -> float:
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024 / SHARE
    except (OSError, KeyError, ValueError):
        return math.inf


def _fillers(dataset: Any) -> list[Any] | None:
    """Return what the dataset's own padded_batch fills each component with; None where it has none."""
    while not hasattr(dataset, "_padding_values"):
        before = dataset._inputs()
        if len(before) != 1 or before[0].element_spec != dataset.element_spec:
            return None
        dataset = before[0]
    return [np.asarray(value).item() for value in leaves(dataset._padding_values)]


def _joined(batches: tuple[NDArray[Any], ...], filler: Any, source: str) -> NDArray[Any]:
    if len({batch.ndim for batch in batches}) > 1:
        raise DataError(
            "{source}: the batches of the tf.data.Dataset have unlike numbers of dimensions.", source=source
        )
    widest = tuple(max(sizes) for sizes in zip(*(batch.shape[1:] for batch in batches), strict=True))
    return np.concatenate([_widened(batch, widest, filler) for batch in batches])


def _widened(batch: NDArray[Any], shape: tuple[int, ...], filler: Any) -> NDArray[Any]:
    if batch.shape[1:] == shape:
        return batch
    if filler is None:
        filler = b"" if batch.dtype == object else 0  # strings are objects here
    whole = np.full((len(batch), *shape), filler, batch.dtype)
    whole[tuple(slice(size) for size in batch.shape)] = batch
    return whole


def _filled(tree: Any, arrays: Iterator[NDArray[Any]]) -> Any:
    if isinstance(tree, dict):
        filled = {key: _filled(tree[key], arrays) for key in sorted(tree)}
        return {key: filled[key] for key in tree}
    if isinstance(tree, tuple | list):
        return tuple(_filled(item, arrays) for item in tree)
    return next(arrays)


def _example_shape(spec: Any, dataset: Any) -> tuple[int, ...]:
    shape = spec.shape[1:] if _is_batched(dataset) else spec.shape
    return tuple(size or 0 for size in shape)


def _is_batched(dataset: Any) -> bool:
    """Whether the elements are batches: told by the shapes, and where these do not tell, by how it was made."""
    shapes: list[Any] = [spec.shape for spec in leaves(dataset.element_spec)]
    if any(shape.rank == 0 for shape in shapes):
        return False
    leading = {shape[0] for shape in shapes}
    return leading == {None} or (len(leading) == 1 and _was_batched(dataset))


def _was_batched(dataset: Any) -> bool:
    name = type(dataset).__name__.lower()
    if "batch" in name:
        return "unbatch" not in name
    return any(_was_batched(source) for source in dataset._inputs())
