"""The client processes of a federation on this machine: one that ends is reported at once, and started again."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from fl_common.errors import MISTAKE, DataError
from fl_common.processes import memory_limit
from fl_common.processes.forking import last_words
from fl_server.superlink.execution.supervisor import LIMIT, Say, ended, pause
from fl_server.superlink.restarts import STEADY_SECONDS


@dataclass
class Place:
    """One client's place. `again_at`: when its process is started again; `given_up`: why it is not, or ""."""

    number: int
    process: BaseProcess
    started: float
    falls: int = 0
    again_at: float | None = None
    given_up: str = ""
    mistaken: bool = False


class LocalClients:
    """`start` starts the client of a number. `needed`: with fewer than so many, the run cannot go on.

    A client that ends by a mistake of its user's, which a second start would meet again, is not started again.
    """

    def __init__(
        self,
        start: Callable[[int], BaseProcess],
        logs: Path,
        *,
        needed: int = 1,
        limit: int = LIMIT,
        say: Say = lambda text: None,
        clock: Callable[[], float] = time.monotonic,
        memory: memory_limit.MemoryKills | None = None,
    ) -> None:
        self._memory = memory or memory_limit.MemoryKills()
        self._start, self._logs, self._needed = start, logs, needed
        self._limit, self._say, self._clock = limit, say, clock
        self._places: list[Place] = []

    def begin(self, count: int) -> None:
        """Start so many clients, numbered from 0."""
        for number in range(count):
            self._places.append(Place(number, self._start(number), self._clock()))

    @property
    def processes(self) -> list[BaseProcess]:
        """The processes, of which some may have ended."""
        return [place.process for place in self._places]

    def tend(self) -> str:
        """Start again what has ended; return why the run cannot go on, or "" while it can.

        Raises DataError where a client's user has to mend something first.
        """
        for place in self._places:
            self._look_at(place)
        gone = [place.given_up for place in self._places if place.given_up]
        if not gone or len(self._places) - len(gone) >= self._needed:
            return ""
        if any(place.mistaken for place in self._places):
            raise DataError(next(place.given_up for place in self._places if place.mistaken))
        who = "every client" if len(gone) == len(self._places) else f"{len(gone)} of {len(self._places)} clients"
        return f"{who} ended, and {self._needed} are needed: {gone[0]}"

    def _look_at(self, place: Place) -> None:
        if place.given_up or place.process.is_alive():
            return
        if place.again_at is None:
            self._fell(place)
        elif self._clock() >= place.again_at:
            place.process, place.started, place.again_at = self._start(place.number), self._clock(), None

    def _fell(self, place: Place) -> None:
        steady = self._clock() - place.started >= STEADY_SECONDS
        place.falls = 1 if steady else place.falls + 1
        log = self._logs / f"client-{place.number}.log"
        what = f"client {place.number} {_how(place.process, self._memory)}"
        if place.process.exitcode == MISTAKE:
            place.mistaken, place.given_up = True, f"client-{place.number} cannot take part: {_error_in(log)}"
        elif place.falls > self._limit:
            place.given_up = f"{what}, {place.falls} times in a row (log: {log})"
        else:
            place.again_at = self._clock() + pause(place.falls)
            self._say(f"{what} and is started again ({place.falls} of at most {self._limit} in a row); log: {log}")
            return
        if sum(not each.given_up for each in self._places) >= self._needed:  # else it is what ends the run
            self._say(f"{place.given_up}; it is not started again")


def _error_in(log: Path) -> str:
    """Return the sentence that a client ended with."""
    lines = [line for line in last_words(log, 50).splitlines() if line.startswith("error: ")]
    return lines[-1].removeprefix("error: ") if lines else f"see {log}"


def _how(process: BaseProcess, memory: memory_limit.MemoryKills) -> str:
    how = ended(process, memory)
    if how == "SIGKILL":
        return "was killed (SIGKILL: the system does so where memory is short)"
    return f"was ended by {how}" if how.startswith("SIG") else f"ended ({how})"
