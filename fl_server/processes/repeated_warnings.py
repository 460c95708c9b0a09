"""What goes wrong again and again, as on a full disk, is said at once and then once a minute."""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

SECONDS = 60.0
REMEMBERED = 500  # texts


class Repeats:
    """Knows what was said in the last minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: OrderedDict[str, float] = OrderedDict()
        self._unsaid: dict[str, int] = {}

    def are(self, text: str) -> bool:
        """Say whether a text was said less than a minute ago; where it was not, it counts as said now."""
        now = self._clock()
        if now - self._said.get(text, -SECONDS) < SECONDS:
            self._unsaid[text] = self._unsaid.get(text, 0) + 1
            return True
        self._said[text] = now
        self._said.move_to_end(text)
        while len(self._said) > REMEMBERED:
            self._unsaid.pop(self._said.popitem(last=False)[0], None)
        return False

    def unsaid(self, text: str) -> int:
        """Return how often a text was not said since it was said, and count anew."""
        return self._unsaid.pop(text, 0)


class ThinnedOut(logging.Filter):
    """Lets a warning or an error through that was not said in the last minute, with how often it came meanwhile."""

    def __init__(self, repeats: Repeats | None = None) -> None:
        super().__init__()
        self._repeats = repeats or Repeats()

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a record is to be written."""
        if record.levelno < logging.WARNING:
            return True
        error = record.exc_info[1] if record.exc_info else None
        text = f"{record.name} {record.getMessage()} {type(error).__name__} {error}"
        if self._repeats.are(text):
            return False
        if more := self._repeats.unsaid(text):
            record.msg, record.args = f"{record.getMessage()} (and {more} times more since it was last said)", ()
        return True


def thin_out(loggers: Iterable[str] = ("flwr",)) -> None:
    """Thin out what this process logs: to standard error where no handler is set, and by the handlers of `loggers`."""
    handlers = [logging.lastResort, *(handler for name in loggers for handler in logging.getLogger(name).handlers)]
    for handler in filter(None, handlers):
        if not any(isinstance(each, ThinnedOut) for each in handler.filters):
            handler.addFilter(ThinnedOut())
