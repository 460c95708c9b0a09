"""Child processes that share one import of TensorFlow: each is forked from a helper that has imported it already.

A start costs milliseconds instead of seconds, and the imported code is in memory once. Used where one command starts
several processes on one machine; a client started on its own imports for itself.
"""

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import forkserver, util
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

GRACE_SECONDS = 5.0


class Nursery:
    """Starts and stops child processes. A child ends when the process that made the nursery does, however that ends.

    Without anything to preload, a child is a fresh interpreter. Python keeps one helper to fork from in a process, so
    all nurseries that preload share what the first of them named.
    """

    def __init__(self, preload: Sequence[str]) -> None:
        forking = preload and "forkserver" in multiprocessing.get_all_start_methods()
        method = "forkserver" if forking else "spawn"
        self._context = multiprocessing.get_context(method)
        if method == "forkserver":
            self._context.set_forkserver_preload(list(preload))
            forkserver.ensure_running()  # now: it imports while this process goes on
        self.children: list[BaseProcess] = []

    @property
    def temporary(self) -> Path:
        """The directory that Python keeps the helper's socket in."""
        return Path(util.get_temp_dir())

    def start(
        self,
        target: Callable[..., None],
        *arguments: Any,
        name: str,
        log_file: Path,
        environment: Mapping[str, str] | None = None,
    ) -> BaseProcess:
        """Run `target(*arguments)` in a child whose output goes to `log_file`. Arguments must be picklable."""
        child = self._context.Process(  # type: ignore[attr-defined]
            target=_run, args=(target, arguments, str(log_file), dict(environment or {})), name=name
        )
        child.start()
        self.children.append(child)
        return child  # type: ignore[no-any-return]

    def stop(self, children: Sequence[BaseProcess] | None = None, *, grace: float = GRACE_SECONDS) -> None:
        """Send SIGTERM, wait up to `grace` seconds for all, then SIGKILL what is left."""
        stopping = [child for child in (self.children if children is None else children) if child.is_alive()]
        for child in stopping:
            child.terminate()
        limit = time.monotonic() + grace
        for child in stopping:
            child.join(max(0.0, limit - time.monotonic()))
        for child in stopping:
            if child.is_alive():
                log.warning("%s did not end within %.0f s of SIGTERM; killed", child.name, grace)
                child.kill()
                child.join()


def _run(target: Callable[..., None], arguments: tuple[Any, ...], log_file: str, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    _redirect(log_file)
    threading.Thread(target=_follow_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides
    target(*arguments)


def _redirect(log_file: str) -> None:
    descriptor = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115 - the descriptor's new file
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(1)
