"""Workers: threads that train parts of a cohort side by side, each with one core's share of TensorFlow's threads."""

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from fl_common.models.frameworks import tf

Part = TypeVar("Part")
Result = TypeVar("Result")


class Workers:
    """`count` threads, of which the caller's own is one. TensorFlow computes outside of Python's lock."""

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self._others = ThreadPoolExecutor(count - 1, "worker") if count > 1 else None

    @classmethod
    def of_this_process(cls, wanted: int = 0) -> "Workers":
        """Return as many as are wanted; 0: as the cores allow, by the threads that one operation of TensorFlow takes.

        Where there is a GPU, one: it takes one program at a time.
        """
        if wanted:
            return cls(wanted)
        if tf.config.list_physical_devices("GPU"):
            return cls(1)
        return cls(max(1, cores() // (tf.config.threading.get_intra_op_parallelism_threads() or cores())))

    def map(self, work: Callable[[int, Part], Result], parts: Sequence[Part]) -> list[Result]:
        """Return work(worker, part) for each part. A worker takes the next part when it is done with its last."""
        waiting = deque(enumerate(parts))
        results: dict[int, Result] = {}

        def run(worker: int) -> None:
            while waiting:
                try:
                    place, part = waiting.popleft()
                except IndexError:  # another worker was faster
                    return
                results[place] = work(worker, part)

        helpers = min(self.count, len(parts)) - 1
        futures = [self._others.submit(run, worker) for worker in range(1, helpers + 1)] if self._others else []
        try:
            run(0)
        finally:
            waiting.clear()  # where one failed, the others stop
            for future in futures:
                future.exception()
        for future in futures:
            future.result()
        return [results[place] for place in range(len(parts))]


def cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
