"""What clients sent and what rounds accepted, on disk: written by both sides, read by the check at the end."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

LIES = "lies.jsonl"
FOLDER = "PARTERRE_CHAOS_LEDGER"  # the environment variable that names it


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Return a name for a model: equal for equal names, types, shapes and bits."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        found.update(f"{name} {array.dtype.str} {array.shape} ".encode() + array.tobytes())
    return found.hexdigest()


class Ledger:
    """A folder: UPDATE.npz for each honest update, round-N.json for what a round accepted last, and the lies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def here(cls) -> "Ledger":
        return cls(Path(os.environ[FOLDER]))

    def sent(self, base: Mapping[str, np.ndarray], update: Mapping[str, np.ndarray], examples: int) -> None:
        """Note an update, the model that it was made from, and its weight."""
        path = self.folder / f"{digest(update)}.npz"
        temporary = path.with_suffix(f".{os.getpid()}")
        with temporary.open("wb") as file:
            np.savez(file, **{f"w/{name}": array for name, array in update.items()}, n=examples, base=digest(base))
        temporary.replace(path)

    def accepted(self, number: int, updates: list[str]) -> None:
        """Note what a round is about to be made of. A round that is done again is noted again."""
        temporary = self.folder / f".round-{number}.{os.getpid()}"
        temporary.write_text(json.dumps(updates))
        temporary.replace(self.folder / f"round-{number}.json")

    def lied(self, node: int, number: int, kind: str) -> None:
        """Note a lie that is about to be told."""
        with (self.folder / LIES).open("a") as file:
            file.write(json.dumps([str(node), number, kind]) + "\n")

    def lies(self) -> dict[tuple[str, int], set[str]]:
        """Return the kinds of lies that were told, by the client's node and the round."""
        told: dict[tuple[str, int], set[str]] = {}
        path = self.folder / LIES
        for node, number, kind in map(json.loads, path.read_text().splitlines() if path.exists() else ()):
            told.setdefault((node, number), set()).add(kind)
        return told

    def round(self, number: int) -> list[str]:
        """Return the names of the updates that a round is made of."""
        return list(json.loads((self.folder / f"round-{number}.json").read_text()))

    def update(self, name: str) -> dict[str, Any]:
        """Return an honest update: "arrays", "examples" and "base". Raises FileNotFoundError for any other."""
        with np.load(self.folder / f"{name}.npz") as stored:
            arrays = {key.removeprefix("w/"): stored[key] for key in stored.files if key.startswith("w/")}
            return {"arrays": arrays, "examples": int(stored["n"]), "base": str(stored["base"])}
