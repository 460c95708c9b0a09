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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from fl_common.errors import ParterreError
from fl_common.network.addresses import spare_own
from fl_common.processes.environment import SAFE_PATH
from fl_common.processes.streams import lossy

log = logging.getLogger(__name__)

GRACE_SECONDS = 5.0


class ForkServer:
    """Starts and stops child processes. A child ends when the process that made this one does, however that ends.

    Without anything to preload, a child is a fresh interpreter. Python keeps one helper to fork from in a process, so
    all nurseries that preload share what the first of them named.
    """

    def __init__(self, preload: Sequence[str]) -> None:
        os.environ.setdefault(*SAFE_PATH)
        spare_own()
        forking = preload and "forkserver" in multiprocessing.get_all_start_methods()
        method = "forkserver" if forking else "spawn"
        self._context = multiprocessing.get_context(method)
        if method == "forkserver":
            self._context.set_forkserver_preload(list(preload))
            with _uninterrupted():
                forkserver.ensure_running()  # now: it imports while this process goes on
        self.children: list[BaseProcess] = []
        self._logs: dict[str, Path] = {}

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
        with _uninterrupted():
            child.start()
        self.children.append(child)
        self._logs[name] = log_file
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
                self._note(child, f"did not end within {grace:.0f} s of SIGTERM; killed")
                child.kill()
                child.join()

    def _note(self, child: BaseProcess, text: str) -> None:
        """Write a line into a child's own log: nobody at the terminal can do anything about it."""
        try:
            with self._logs[child.name].open("a") as file:
                file.write(f"{child.name} {text}\n")
        except (KeyError, OSError):
            log.info("%s %s", child.name, text)


def end_helpers() -> None:
    """End the two processes that Python keeps to fork and clean up after children, of whom there are none any more.

    They would end by themselves a moment after this process, when whoever waits for it believes that all is over.
    """
    _end(forkserver._forkserver, "_forkserver_alive_fd", "_forkserver_pid")
    _end(resource_tracker._resource_tracker, "_fd", "_pid")


def _end(owner: Any, descriptor: str, process: str) -> None:
    """Close what a helper waits on, and wait for it; Python starts another one when it needs one.

    One that does not end (the helper to fork from may still be importing) is killed.
    """
    pid = getattr(owner, process, None)
    if pid is None:
        return
    os.close(getattr(owner, descriptor))
    setattr(owner, descriptor, None)
    setattr(owner, process, None)
    limit = time.monotonic() + GRACE_SECONDS
    with suppress(ChildProcessError):
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > limit:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Have what is started here never see Ctrl-C, which the terminal sends to all: the one who started it decides.

    A mask, unlike a handler, is inherited by a new interpreter that is still importing. Ours comes after it.
    """
    resource_tracker.ensure_running()  # it would lift the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run(target: Callable[..., None], arguments: tuple[Any, ...], log_file: str, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    _redirect(log_file)
    threading.Thread(target=_follow_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides
    try:
        target(*arguments)
    except ParterreError as error:  # a sentence for a person, as the command itself ends with
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)


def last_words(log_file: Path, lines: int) -> str:
    """Return the end of a child's log."""
    return "\n".join(log_file.read_text(errors="replace").strip().splitlines()[-lines:]) if log_file.exists() else ""


def _redirect(log_file: str) -> None:
    try:
        descriptor = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError:  # a full disk, say: the work goes on unsaid
        descriptor = os.open(os.devnull, os.O_WRONLY)
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        stream.flush()
        os.dup2(descriptor, number)
    os.close(descriptor)
    sys.stdout, sys.stderr = lossy(1), lossy(2)


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(1)
