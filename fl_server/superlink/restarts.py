"""A SuperLink that is started again when it falls or hangs: with a pause that grows, and a limit."""

import logging
import time
from collections.abc import Callable

from fl_common.errors import NetworkError, StoreError
from fl_common.processes import memory_limit
from fl_server.processes.repeated_warnings import Repeats
from fl_server.superlink.execution.supervisor import AGAIN_SECONDS, LIMIT, Say, ended, pause
from fl_server.superlink.process import SuperLink

log = logging.getLogger(__name__)

STEADY_SECONDS = 60.0  # a fall this long after a start is the first of a new row
HUNG_SECONDS = 30.0  # without an answer, from one that does nothing
BUSY_SECONDS = 300.0  # from one that computes: it has much to do, or gets little of the machine
BUSY_SHARE = 0.04  # of a core: less is what idle threads take
PORT_SECONDS = 10.0  # what the SuperLink of a killed server may take to end


class RestartedSuperLink:
    """Call `start` once and `tick` a few times a second.

    `before` is called before each start; `limit` is how many falls in a row are borne before NetworkError is raised;
    `meanwhile` is called again and again while a start takes time.
    """

    def __init__(
        self,
        superlink: SuperLink,
        *,
        before: Callable[[], object] = lambda: None,
        limit: int = LIMIT,
        say: Say = log.warning,
        clock: Callable[[], float] = time.monotonic,
        memory: memory_limit.MemoryKills | None = None,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        self._meanwhile = meanwhile
        self._worked = 0.0  # when it last answered
        self._memory = memory or memory_limit.MemoryKills()
        self._superlink = superlink
        self._before = before
        self._limit = limit
        self._say = say
        self._clock = clock
        self._started = 0.0
        self._falls = 0
        self._repeats = Repeats(clock)
        self._again_at: float | None = None

    def start(self, *, patience: float = 0.0, wait: bool = True) -> None:
        """Start the SuperLink, and `wait` until it is ready. Ports that are taken are waited for up to `patience`."""
        limit = self._clock() + patience
        while True:
            try:
                self._before()
                self._superlink.start()
                break
            except (NetworkError, StoreError):
                if self._clock() > limit:
                    raise
                time.sleep(0.1)
        self._started = self._clock()
        if wait:
            self._superlink.wait_until_ready(self._meanwhile)

    def tick(self) -> bool:
        """Look after the SuperLink; True where it was started again. Raises NetworkError where that is of no use."""
        if self._again_at is not None:
            return self._clock() >= self._again_at and self._start_again()
        if self._superlink.alive and self._hangs():
            self._say(f"the SuperLink has not answered for {self._superlink.executor.silence():.0f} s; it is killed")
            self._superlink.kill()
        if not self._superlink.alive:
            self._fell()
        return False

    def _hangs(self) -> bool:
        silence, work = self._superlink.executor.silence(), self._superlink.work()
        if not silence:
            self._worked = work
        busy = work - self._worked > BUSY_SHARE * silence
        return silence > (BUSY_SECONDS if busy else HUNG_SECONDS)

    @property
    def up(self) -> bool:
        """Say whether it runs; False while it waits to be started again."""
        return self._again_at is None and self._superlink.alive

    def _start_again(self) -> bool:
        self._again_at = None
        try:
            self.start(patience=PORT_SECONDS)
        except StoreError as error:  # a full disk: nothing fell
            if not self._repeats.are(str(error)):
                self._say(f"the SuperLink cannot be started yet: {error}")
            self._again_at = self._clock() + AGAIN_SECONDS
            return False
        except NetworkError as error:
            if self._falls >= self._limit:
                raise
            self._say(str(error))
            self._superlink.kill()
            self._fell()
            return False
        return True

    def _fell(self) -> None:
        words = ended(self._superlink.process, self._memory)
        words += f"; its last words: {self._superlink.last_words()}" if not words.startswith("SIG") else ""
        self._falls = self._falls + 1 if self._clock() - self._started < STEADY_SECONDS else 1
        if self._falls > self._limit:
            raise NetworkError(f"the SuperLink fell {self._falls} times in a row: {words}")
        seconds = pause(self._falls)
        self._say(f"the SuperLink fell ({words}); starting it again in {seconds:g} s")
        self._again_at = self._clock() + seconds
