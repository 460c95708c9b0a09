"""How a shared data set is split over clients: flwr-datasets' partitioners, over indices and labels only.

The split of a data set is the same in every process: it depends on the labels, the settings and nothing else.
"""

import contextlib
import hashlib
import importlib
import importlib.util
import io
import json
import sys
import warnings
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_common.data.cache import kept
from fl_common.errors import DataError, Shown
from fl_common.settings.schema import Settings

Indices = NDArray[np.int64]
Partitioned = list[Indices]

PARAMETERS = {
    "iid": (),
    "dirichlet": ("alpha",),
    "shards": ("classes_per_client",),
    "power_law": ("power",),
    "natural": (),
}


def partition_indices(
    labels: NDArray[Any], partition: int, partitions: int, settings: Settings, *, ids: NDArray[Any] | None = None
) -> Indices:
    """Return the ascending indices of one of `partitions` partitions. See `split`."""
    if not 0 <= partition < partitions:
        raise DataError(
            "partition must be in [0, {partitions}); got {partition}.",
            partitions=Shown(partitions),
            partition=Shown(partition),
        )
    return split(labels, partitions, settings, ids=ids)[partition]


def split(labels: NDArray[Any], partitions: int, settings: Settings, *, ids: NDArray[Any] | None = None) -> Partitioned:
    """Split len(labels) examples by `settings.partitioning` and `settings.seed`: each into exactly one partition.

    labels: int or text [n] or [n, 1], or one-hot [n, classes]; iid, power_law and natural take any array [n, ...].
    ids: [n], for partitioning=natural: all examples of an id go to one partition.
    Returns ascending index arrays, disjoint, covering [0, n), none empty. Where the partitioner leaves examples out,
    each goes to the smallest partition; where it leaves a partition empty, that takes one example of the largest.

    - iid: equal sizes, at random.
    - dirichlet: for each class, shares drawn from Dirichlet(alpha) (Yurochkin et al. 2019, arXiv:1905.12022).
    - shards: `classes_per_client` classes for each partition. Where there are too few partitions to hold every class
      that way, or a class has fewer examples than holders, sorted by label and dealt in equal shards, as many for each
      partition (McMahan et al. 2017, arXiv:1602.05629, section 3).
    - power_law: partition i has a size proportional to (i + 1) ** -power, at least one.
    - natural: by id; where there are more ids than partitions, ids are shuffled and dealt out in turn.

    Computed once for a machine and kept in its cache. Raises DataError where the data cannot be split so.
    """
    scheme = settings.partitioning
    if partitions < 1 or len(labels) < partitions:
        raise DataError(
            "{examples} examples cannot be split into {partitions} partitions with at least one each. "
            "Ask for 1 to {examples} clients or partitions.",
            examples=len(labels),
            partitions=Shown(partitions),
        )
    keys = _keys(scheme, labels, ids)
    parameters = {name: getattr(settings, name) for name in PARAMETERS[scheme]}
    return kept(
        "splits",
        _fingerprint(keys, [scheme, parameters, settings.seed, partitions, len(labels)]),
        lambda: compute(keys, partitions, settings),
    )


def compute(keys: Indices, partitions: int, settings: Settings) -> Partitioned:
    """Split without the cache. keys: int64 [n], the class or id of each example; zeros where the scheme needs none."""
    order = np.random.default_rng([settings.seed, partitions]).permutation(len(keys))
    partitioner, column = _partitioner(keys[order], partitions, settings)
    return _repaired([order[rows] for rows in _rows(partitioner, column, partitions)], len(keys))


def _keys(scheme: str, labels: NDArray[Any], ids: NDArray[Any] | None) -> Indices:
    if scheme in ("iid", "power_law"):
        return np.zeros(len(labels), np.int64)
    if scheme == "natural":
        if ids is None:
            raise DataError.shared(
                "partitioning=natural needs the id of each example; pass ids=... to partition_indices."
            )
        if np.shape(ids) != (len(labels),):
            raise DataError(
                "ids must be one for each of {examples} examples; got shape {shape}.",
                examples=len(labels),
                shape=np.shape(ids),
            )
        return _numbered(ids)
    return _numbered(_classes(scheme, np.asarray(labels)))


def _numbered(values: NDArray[Any]) -> Indices:
    return np.unique(np.asarray(values), return_inverse=True)[1].astype(np.int64)


def _classes(scheme: str, labels: NDArray[Any]) -> NDArray[Any]:
    if labels.ndim == 2 and labels.shape[1] > 1:
        labels = labels.argmax(axis=1)
    labels = labels.reshape(len(labels), -1)
    if labels.shape[1] != 1 or (labels.dtype.kind == "f" and np.any(labels % 1 != 0)):
        raise DataError(
            "partitioning={scheme} needs one class label for each example; got labels of dtype {dtype} and "
            "shape {shape}. Choose iid or power_law.",
            scheme=Shown(scheme),
            dtype=labels.dtype,
            shape=labels.shape,
        )
    return labels[:, 0]


def _schemes() -> Any:
    """Import flwr_datasets.partitioner alone: the package around it also loads plots and downloads, 2 s and 90 MB."""
    name = "flwr_datasets"
    spec = importlib.util.find_spec(name)
    if name in sys.modules or spec is None:
        return importlib.import_module(f"{name}.partitioner")
    bare = ModuleType(name)
    bare.__path__ = list(spec.submodule_search_locations or [])
    sys.modules[name] = bare
    try:
        return importlib.import_module(f"{name}.partitioner")
    finally:  # anyone else who imports the package gets it whole
        for each in [each for each in sys.modules if each.partition(".")[0] == name]:
            del sys.modules[each]


def _partitioner(keys: Indices, partitions: int, settings: Settings) -> tuple[Any, NDArray[Any]]:
    """Return flwr-datasets' partitioner for the settings, and the column of keys that it works on."""
    schemes = _schemes()
    match settings.partitioning:
        case "iid":
            return schemes.IidPartitioner(partitions), keys
        case "dirichlet":
            draw = schemes.DirichletPartitioner(
                partitions, "key", settings.alpha, min_partition_size=0, shuffle=False, seed=settings.seed
            )
            return draw, keys
        case "shards":
            return _shards(keys, partitions, settings)
        case "power_law":
            return schemes.SizePartitioner(power_law(len(keys), partitions, settings.power)), keys
        case "natural":
            return schemes.NaturalIdPartitioner("key"), _dealt(keys, partitions, settings)


def _shards(keys: Indices, partitions: int, settings: Settings) -> tuple[Any, NDArray[Any]]:
    schemes = _schemes()
    held, sizes = settings.classes_per_client, np.bincount(keys)
    if held > len(sizes):
        raise DataError(
            "classes_per_client must be at most {classes}, the number of classes in the data; got {held}. "
            "Set it with --set classes_per_client={classes}",
            classes=Shown(len(sizes)),
            held=Shown(held),
        )
    names = np.random.default_rng([settings.seed, len(sizes)]).permutation(len(sizes))
    renamed = names[keys]
    holders = np.bincount((np.arange(partitions)[:, None] + np.arange(held)).ravel() % len(sizes), minlength=len(sizes))
    if np.all((holders >= 1) & (holders <= np.bincount(renamed))):
        return schemes.PathologicalPartitioner(partitions, "key", held, "deterministic", shuffle=False), renamed
    shards = min(held, len(keys) // partitions)
    return schemes.ShardPartitioner(
        partitions, "key", num_shards_per_partition=shards, shuffle=False, seed=settings.seed
    ), keys


def power_law(examples: int, partitions: int, power: float) -> list[int]:
    """Return sizes proportional to (i + 1) ** -power that sum to `examples`, each at least 1, largest first."""
    weights = np.arange(1, partitions + 1, dtype=np.float64) ** -power
    ideal = weights / weights.sum() * (examples - partitions)
    sizes = 1 + np.floor(ideal).astype(np.int64)
    sizes[: examples - sizes.sum()] += 1
    return [int(size) for size in sizes]


def _dealt(keys: Indices, partitions: int, settings: Settings) -> Indices:
    total = int(keys.max()) + 1
    if total < partitions:
        raise DataError(
            "partitioning=natural has {total} ids in {column!r}, fewer than {partitions} partitions. "
            "Ask for at most {total} clients or partitions.",
            total=total,
            column=settings.id_column,
            partitions=Shown(partitions),
        )
    turn = np.random.default_rng([settings.seed, total]).permutation(total)
    return np.asarray(turn[keys] % partitions, dtype=np.int64)


def _rows(partitioner: Any, column: NDArray[Any], partitions: int) -> Partitioned:
    from datasets import Dataset

    # flwr-datasets shows a progress bar and warns of what is repaired below.
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        partitioner.dataset = Dataset.from_dict({"row": np.arange(len(column)), "key": column})
        parts = (partitioner.load_partition(number) for number in range(partitions))
        return [np.asarray(part["row"], dtype=np.int64) for part in parts]


def _repaired(parts: Partitioned, examples: int) -> Partitioned:
    owner = np.full(examples, -1, np.int64)
    for number, part in reversed(list(enumerate(parts))):
        owner[part] = number
    sizes = np.bincount(owner[owner >= 0], minlength=len(parts))
    for example in np.flatnonzero(owner < 0).tolist():
        owner[example] = sizes.argmin()
        sizes[owner[example]] += 1
    for number in np.flatnonzero(sizes == 0).tolist():
        giver = int(np.argmax(sizes))
        owner[np.flatnonzero(owner == giver)[-1]] = number
        sizes[giver] -= 1
        sizes[number] = 1
    return [np.flatnonzero(owner == number).astype(np.int64) for number in range(len(parts))]


def _fingerprint(keys: Indices, parameters: list[Any]) -> str:
    digest = hashlib.sha256(json.dumps([1, *parameters], sort_keys=True).encode())
    digest.update(np.ascontiguousarray(keys, dtype="<i8").tobytes())
    return digest.hexdigest()[:32]
