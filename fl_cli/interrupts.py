"""Ctrl-C in a run that this process itself computes: once, it stops after this round; twice, now.

A program of TensorFlow's may run for minutes, in which Python's own handlers are not called: signals are heard by a
thread. The run's directory is whole at any moment, so that the process may end at any.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from parterre.federation import Stopped, stopping_signals

GRACE_SECONDS = 3.0  # in which the process may end by itself after it was told to, before it is ended
CURSOR = "\x1b[?25h"  # shows it again


class Interrupts:
    """While entered, signals stop the run. say: is told what happens. last_words: are said where the end is hard."""

    def __init__(self, say: Callable[[str], object], last_words: Callable[[], str]) -> None:
        self._say = say
        self._last_words = last_words
        self._pressed = 0  # signals that the thread heard
        self._handled = 0  # those that Python came to handle: two in a row may be one
        self._in_rounds = False
        self._over = threading.Event()
        self._before: dict[int, Any] = {}

    def halt(self) -> None:
        """Raise Stopped between two rounds, where a signal has asked for it."""
        self._in_rounds = True
        if self._pressed:
            raise Stopped(signal.SIGINT)

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._before = {each: signal.signal(each, self._on_signal) for each in stopping_signals()}
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, name="interrupts", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        signal.set_wakeup_fd(self._wakeup)
        for each, handler in self._before.items():
            signal.signal(each, handler)
        os.close(self._write)  # which ends the thread

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Stop what Python runs; between two operations of TensorFlow's it does."""
        self._handled += 1
        if number != signal.SIGINT or self._handled > 1 or not self._in_rounds:
            for each in self._before:
                signal.signal(each, signal.SIG_IGN)  # what follows is the clean-up
            raise Stopped(number)

    def _watch(self) -> None:
        while (number := os.read(self._read, 1)) and not self._over.is_set():
            if number[0] not in self._before:
                continue
            self._pressed += 1
            if number[0] == signal.SIGINT and self._pressed == 1 and self._in_rounds:
                self._say("stopping after this round; Ctrl-C again stops now")
            else:
                self._end(number[0])
        os.close(self._read)

    def _end(self, number: int) -> None:
        if not self._over.wait(GRACE_SECONDS):
            sys.stderr.write(CURSOR if sys.stderr.isatty() else "")
            self._say(self._last_words())
            sys.stderr.flush()
            os._exit(128 + number)
