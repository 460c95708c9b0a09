"""Marks of a run's log of events: its length and SHA-256 so far. By that of a checkpoint a damaged log is known."""

import hashlib
from pathlib import Path

from fl_server.store.disk.whole_writes import plainly

CHUNK, LONGEST = 1 << 20, 19


class LogMark:
    """The mark of a log that grows: each byte is read once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._length = 0
        self._sum = hashlib.sha256()

    def now(self, round_: int) -> str:
        """Return the mark of the whole lines so far, after a round: "LENGTH SHA-256 ROUND"."""
        if self._path.is_file():
            with plainly(f"read {self._path}"), self._path.open("rb") as file:
                file.seek(self._length)
                found, taken = self._sum.copy(), self._length
                while piece := file.readline(CHUNK):
                    found.update(piece)
                    taken += len(piece)
                    if piece.endswith(b"\n"):  # a part of a line may be taken back
                        self._sum, self._length = found.copy(), taken
        return f"{self._length} {self._sum.hexdigest()} {round_}"


def counting(of_checkpoint: str, of_seal: str) -> list[str]:
    """Return which of the two marks must stand: a log that was rebuilt is not what checkpoints of before have seen."""
    later = _round(of_checkpoint) > _round(of_seal)
    return [mark for mark in (of_seal, of_checkpoint if later or not of_seal else "") if mark]


def length(mark: str) -> int:
    """Return the bytes that a mark stands for; 0 for what is no mark."""
    return _number(mark.partition(" ")[0])


def stands(path: Path, mark: str) -> bool:
    """Say whether a log still begins with what the mark stands for; so does every one for an empty mark."""
    left = length(mark)
    if not left:
        return True
    found = hashlib.sha256()
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            while left and (chunk := file.read(min(left, CHUNK))):
                found.update(chunk)
                left -= len(chunk)
    except OSError:
        return False
    return not left and found.hexdigest() == mark.split(" ")[1]


def _round(mark: str) -> int:
    return _number(mark.rpartition(" ")[2])


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < LONGEST else 0
