"""The files of a run that are written once, and the seal that says what they were: found damaged, put back, signed."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from shutil import rmtree
from typing import Any

from fl_common.errors import StoreError
from fl_server.store import checkpoints
from fl_server.store.disk import whole_writes
from fl_server.store.seals import seals
from fl_server.store.seals.seals import TEXTS, Seal

TASK, CHECKPOINTS = "task", "checkpoints"
LARGEST = 1 << 20  # bytes of such a file that is read


class RunFiles:
    """A run's files, by its seal or, where that is lost, by what the newest checkpoint keeps of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @cached_property
    def _found(self) -> tuple[Seal, bool, str]:
        """The seal, whether it is this user's, and what is wrong with it."""
        try:
            return *seals.read(self.directory), ""
        except StoreError as error:
            kept = checkpoints.of_run(self.directory / CHECKPOINTS)
            return seals.of(kept.get("seal")), False, str(error)

    @property
    def seal(self) -> Seal:
        """What is known of the run's files; an empty seal where nothing is."""
        return self._found[0]

    @property
    def mine(self) -> bool:
        """Whether the run was sealed by this user, and what could run Python in it is what it was then."""
        return self._found[1] and not self.strays()

    @property
    def has_task(self) -> bool:
        """Whether the run keeps the files of a task that travelled with it."""
        return any(name.startswith(f"{TASK}/") for name in self.seal.sums)

    def begin(self, texts: Mapping[str, str], *, simulated: bool) -> None:
        """Seal a new run, and write its small files."""
        self._write(Seal(dict(texts), simulated), sign=True)
        for name, text in texts.items():
            whole_writes.replace(self.directory / name, text.encode())

    def keep(self, name: str, text: str) -> None:
        """Write one more small file."""
        self._write(self.seal.with_text(name, text))
        whole_writes.replace(self.directory / name, text.encode())

    def keep_sums(self, *names: str) -> None:
        """Keep the sums that these files have now, of which one that is not there has none."""
        there = [name for name in names if (self.directory / name).is_file()]
        if there:
            self._write(self.seal.with_sums(self.directory, there))

    def keep_task(self) -> None:
        """Keep the sums of the task's files."""
        self.keep_sums(*self._of_task())

    def keep_mark(self, mark: str) -> None:
        """Keep the mark of a log of events that was rebuilt."""
        self._write(replace(self.seal, log=mark))

    def is_whole(self, name: str) -> bool:
        """Say whether a file is what it was sealed as."""
        return self.seal.is_whole(self.directory, name)

    def text(self, name: str) -> str:
        """Return what a small file was; what it is, where nothing says that. Raises StoreError for none."""
        if name in self.seal.texts:
            return self.seal.texts[name]
        path = self.directory / name
        try:
            return whole_writes.content(path, LARGEST).decode()
        except UnicodeDecodeError:
            raise StoreError(f"{path} is damaged: it is no text. Nothing in the run says what it was.") from None

    def strays(self) -> list[str]:
        """Return the files of the task that are not what they were, are gone or were added.

        A run that was sealed without files of a task has none there. What Python compiled is left out.
        """
        if not self.has_task:
            return []
        known = {name for name in self.seal.sums if name.startswith(f"{TASK}/")}
        return [name for name in sorted({*known, *self._of_task()}) if not self.is_whole(name)]

    def forget_compiled(self) -> None:
        """Remove what Python compiled of the task: it is run for the source beside it, without a look at that."""
        for folder in sorted((self.directory / TASK).rglob("__pycache__")):
            with whole_writes.plainly(f"remove {folder}"):
                rmtree(folder)

    def faults(self) -> list[tuple[str, str]]:
        """Return which files are not what they were, and what is wrong with each."""
        found = [(seals.FILE, self._found[2])] if self._found[2] else []
        for name, text in self.seal.texts.items():
            path = self.directory / name
            if seals.sum_of(path) != seals.sum_of_text(text):
                what = "it is not what the run began with" if path.exists() else "it is gone"
                found.append((name, f"{path} is damaged: {what}"))
        return found + [(name, f"{self.directory / name} is not what the run began with") for name in self.strays()]

    def put_back(self) -> list[tuple[str, str]]:
        """Write again what is lost of small files, and of the seal; return which, and what was wrong with each."""
        mended = [fault for fault in self.faults() if fault[0] in (*self.seal.texts, seals.FILE)]
        for name, _ in mended:
            if name != seals.FILE:
                whole_writes.replace(self.directory / name, self.seal.texts[name].encode())
        if self._found[2]:
            self._write(self._as_it_is(), sign=False)
        return mended

    def sign(self) -> None:
        """Seal the run as this user's, as it is now."""
        self._write(self._as_it_is(), sign=True)

    def _as_it_is(self) -> Seal:
        texts = {name: self.text(name) for name in TEXTS if (self.directory / name).is_file()}
        others = {name: value for name, value in self.seal.sums.items() if not name.startswith(f"{TASK}/")}
        return replace(self.seal, texts=texts, sums=others).with_sums(self.directory, self._of_task())

    def _of_task(self) -> list[str]:
        return sorted(each.relative_to(self.directory).as_posix() for each in _files(self.directory / TASK))

    def _write(self, seal: Seal, *, sign: bool | None = None) -> None:
        signed = seals.write(self.directory, seal, sign=self._found[1] if sign is None else sign)
        self._found = (seal, signed, "")

    def of_run(self) -> dict[str, Any]:
        """Return what a checkpoint keeps, so that the run outlasts the loss of its seal."""
        return {"seal": asdict(self.seal)}


def _files(folder: Path) -> Iterator[Path]:
    found = (each for each in folder.rglob("*") if each.is_symlink() or not each.is_dir())
    return (each for each in found if "__pycache__" not in each.relative_to(folder).parts)
