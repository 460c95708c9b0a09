"""A task over one data set that all clients can read: split by settings, one partition a client."""

from collections.abc import Callable
from typing import Any

from fl_common.data.examples import Examples, hold_out, hold_out_rows, take
from fl_common.data.partitions import partition_indices, split
from fl_common.errors import DataError, Shown
from fl_common.settings.schema import Settings
from fl_common.tasks.task import Rows, Shared, Task


def shared_task(
    name: str,
    build_model: Callable[[], Any],
    load_train: Callable[[], Examples],
    load_test: Callable[[], Examples],
    settings: Settings,
) -> Task:
    """Return a task whose partitions are `settings.partitioning` of load_train(), each with its own validation part."""
    if settings.partitioning == "natural":
        raise DataError(
            "partitioning=natural needs a column of ids, which task {name} does not have. "
            "Choose iid, dirichlet, shards or power_law, or a task of your own that passes ids to partition_indices.",
            name=Shown(name),
        )

    def load_partition(partition: int, partitions: int) -> tuple[Examples, Examples]:
        whole = load_train()
        mine = take(whole, partition_indices(whole[1], partition, partitions, settings))
        return hold_out(mine, settings.validation_fraction, settings.seed)

    def share(partitions: int) -> Shared:
        whole = load_train()
        parts = split(whole[1], partitions, settings)

        def rows(partition: int) -> tuple[Rows, Rows]:
            mine = parts[partition]
            train, held = hold_out_rows(len(mine), settings.validation_fraction, settings.seed)
            return mine[train], mine[held]

        return Shared(whole, rows)

    return Task(name, build_model, load_partition, load_test, share=share)
