"""What a running process says of itself, in one small file: health probes read it. Replaced as a whole, never torn."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from fl_common.errors import StoreError

FILE = "pulse.json"
BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Health:
    """Times are seconds since 1970; `heard` is when the other side last answered, None: never.

    `ticks` and `heard_ticks` are the same moments by the monotonic clock of the boot `boot`, which nobody sets.
    `address` is where the process can be called, and `authority` the PEM file of the CA to know it by, "" without TLS.
    """

    state: str
    detail: str
    written: float
    heard: float | None = None
    address: str = ""
    authority: str = ""
    boot: str = ""
    ticks: float = 0.0
    heard_ticks: float = 0.0

    def age(self, now: "Now") -> float:
        """Return seconds since the process last wrote."""
        return now.since(self.boot, self.written, self.ticks)

    def silence(self, now: "Now") -> float:
        """Return seconds since the other side last answered."""
        return float("inf") if self.heard is None else now.since(self.boot, self.heard, self.heard_ticks)


@dataclass(frozen=True)
class Now:
    """A moment by both clocks. The wall clock counts where a pulse is of another boot of the machine only."""

    wall: float
    ticks: float
    boot: str

    @classmethod
    def here(cls) -> "Now":
        """Return this moment."""
        try:
            boot = BOOT.read_text().strip()
        except OSError:
            boot = ""
        return cls(time.time(), time.monotonic(), boot)

    def since(self, boot: str, wall: float, ticks: float) -> float:
        """Return the seconds since a moment."""
        return max(0.0, self.ticks - ticks if boot and boot == self.boot else self.wall - wall)


class HealthFile:
    """Writes the pulse of this process into `directory`."""

    def __init__(
        self, directory: Path, *, address: str = "", authority: str = "", clock: Callable[[], Now] = Now.here
    ) -> None:
        self._path = directory / FILE
        self._fixed = {"address": address, "authority": authority}
        self._clock = clock
        self._heard: Now | None = None

    def beat(self, state: str, detail: str = "", *, heard: bool = False) -> str:
        """Write that the process is in `state`, and with `heard` that the other side answered.

        Returns "", or why it could not be written: that is no reason for a process to end.
        """
        now = self._clock()
        self._heard = now if heard else self._heard
        last = self._heard
        pulse = Health(
            state, detail, now.wall, last.wall if last else None, **self._fixed,
            boot=now.boot, ticks=now.ticks, heard_ticks=last.ticks if last else 0.0,
        )  # fmt: skip
        temporary = self._path.with_name(f".{FILE}.{os.getpid()}")
        try:
            temporary.write_text(json.dumps(asdict(pulse)))
            temporary.replace(self._path)
        except OSError as error:
            return f"{self._path} cannot be written: {error.strerror}"
        return ""


def read(directory: Path) -> Health:
    """Return the pulse in a directory. Raises StoreError where there is none, or it is not one."""
    path = directory / FILE
    try:
        return Health(**json.loads(path.read_text()))
    except FileNotFoundError:
        raise StoreError(f"there is no {path}: the process has not started, or keeps its state elsewhere") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError):
        raise StoreError(f"{path} is not the pulse of a process; remove it, and it is written anew") from None
