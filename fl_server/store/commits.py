"""Commits of rounds, on a thread: a checkpoint is written to the disk while the next round trains.

What is promised: a round is announced, in the log and to observers, only once its checkpoint is on the disk, and what
happened after it is announced after it. At most one round is under way to the disk.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from fl_server.store.checkpoints import Checkpoint
from fl_server.store.runs import Run

Observe = Callable[[Mapping[str, Any]], None]


class Commits:
    """Commits one round after the other. Used from one thread."""

    def __init__(self, run: Run, observe: Observe) -> None:
        self._run = run
        self._observe = observe
        self._thread = ThreadPoolExecutor(1, "commit")
        self._pending: Future[None] | None = None

    def begin(self, checkpoint: Checkpoint, event: Mapping[str, Any], clients: Mapping[str, Any] | None) -> None:
        """Begin to commit a round, once the one before is committed. `clients` is kept for others where it changed.

        Nothing of what is given may change afterwards. Raises what the round before met with.
        """
        self.settle()
        self._pending = self._thread.submit(self._commit, checkpoint, event, clients)

    def settle(self) -> None:
        """Wait until what was begun is committed and announced. Raises StoreError where it could not be."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Settle, and end the thread."""
        try:
            self.settle()
        finally:
            self._thread.shutdown()

    def _commit(self, checkpoint: Checkpoint, event: Mapping[str, Any], clients: Mapping[str, Any] | None) -> None:
        committed = self._run.commit(checkpoint, event)
        if clients is not None:
            self._run.keep_clients(clients)
        self._observe(committed)
