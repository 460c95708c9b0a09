"""Plans: what every engine trains on, in which order, from which weights; written once, read by every runner.

A plan is an .npz file made by Parterre's own task, partitioner, sampling and batch plan.
`python benchmarks/peers/plans.py W1` writes that of W1 into the cache folder.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.workloads import WORKLOADS, Workload

CACHE = Path(os.environ.get("PARTERRE_PEERS", "~/.cache/parterre-peers")).expanduser()
ROUNDS = {"W1": 30, "W2": 12, "W3": 3, "W4": 30, "W5": 30}  # at most, for ours and for every peer


def workload(name: str) -> Workload:
    """Return the workload with the number of rounds that is compared, warm ones included."""
    return replace(WORKLOADS[name], rounds=ROUNDS[name] - WORKLOADS[name].warm)


def plan_of(name: str) -> Path:
    """Return the plan of a workload, written first if it is not there."""
    path = CACHE / "plans" / f"{name}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part.npz")
        write(workload(name), unfinished)
        unfinished.rename(path)
    return path


def examples(name: str) -> list[int]:
    """Return how many examples each round of a plan has, epochs counted."""
    with np.load(plan_of(name)) as plan:
        return [int(starts[-1] - starts[0]) for starts in plan["starts"]]


def write(workload: Workload, path: Path) -> None:
    """Write the plan: the data, the starting weights, and for every round the clients and the order of their examples.

    order: int32, rows of x_train; the client at `place` of `round` (from 0) has order[starts[round, place] :
    starts[round, place + 1]], all its epochs one after another.
    """
    from fl_common.data.batches import plan
    from fl_common.models.weights import weights_of
    from fl_common.settings.schema import parse
    from fl_common.tasks.task import build, resolve

    settings = parse(workload.settings() | {"seed": 0})
    task = resolve(settings)
    examples, rows = _clients(task, workload.clients)
    cohorts = np.array(list(_cohorts(settings, workload)))
    orders, starts = [], np.zeros((ROUNDS[workload.name], workload.cohort + 1), np.int64)
    total = 0
    for number, cohort in enumerate(cohorts):
        starts[number, 0] = total
        for place, client in enumerate(cohort):
            mine = rows[client]
            epochs = plan(
                len(mine), settings.batch_size, settings.local_epochs, seed=0, round=number + 1, client=int(client)
            )
            orders += [mine[epoch].astype(np.int32) for epoch in epochs]
            total += len(mine) * settings.local_epochs
            starts[number, place + 1] = total
    x_test, y_test = task.load_test()
    weights = weights_of(build(task, 0))
    np.savez(
        path,
        x_train=np.asarray(examples[0]),
        y_train=np.asarray(examples[1]),
        x_test=np.asarray(x_test),
        y_test=np.asarray(y_test),
        cohorts=cohorts,
        starts=starts,
        order=np.concatenate(orders),
        sizes=np.array([len(each) for each in rows]),
        **{f"weight_{place}": np.asarray(value) for place, value in enumerate(weights.values())},
    )


def _clients(task: Any, clients: int) -> tuple[Any, list[Any]]:
    """Return all examples, and each client's rows of them."""
    if task.share is not None:
        shared = task.share(clients)
        return shared.examples, [shared.rows(client)[0] for client in range(clients)]
    parts = [task.load_partition(client, clients)[0] for client in range(clients)]
    ends = np.cumsum([len(y) for _, y in parts])
    whole = tuple(np.concatenate([part[place] for part in parts]) for place in (0, 1))
    return whole, [np.arange(end - len(y), end) for end, (_, y) in zip(ends, parts, strict=True)]


def _cohorts(settings: Any, workload: Workload) -> Iterator[list[int]]:
    """Return the clients of each round: those that the strategy of `fl simulate` draws."""
    from flwr.app import ArrayRecord, ConfigRecord

    import strategies

    class Grid:
        def get_node_ids(self) -> list[int]:
            return list(range(workload.clients))

    strategy = strategies.make(settings)
    arrays = ArrayRecord([np.zeros(1, np.float32)])
    for number in range(ROUNDS[workload.name]):
        asked = strategy.configure_train(number + 1, arrays, ConfigRecord(), Grid())
        yield [message.metadata.dst_node_id for message in asked]


if __name__ == "__main__":
    for each in sys.argv[1:] or ROUNDS:
        print(plan_of(each))
