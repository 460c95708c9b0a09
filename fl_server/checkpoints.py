"""Checkpoints of a run on disk: a directory a round, written whole or not at all, and verified when it is read.

No pickle: arrays are `.npy` members of an `.npz`, everything else is JSON in the manifest, with SHA-256 sums of all.
"""

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl_common.errors import StoreError
from fl_server.disk import plainly, sync
from fl_server.events import Event

if TYPE_CHECKING:  # every command knows the run store, and `fl --help` has no time for NumPy
    from numpy.typing import NDArray

ARRAYS, STATE, MANIFEST = "arrays.npz", "state.npz", "manifest.json"
NATIVE = 1  # numpy.dtype.isbuiltin of NumPy's own types


@dataclass(frozen=True)
class Checkpoint:
    """Everything that the rounds after `round` depend on: the model by variable name, the strategy's state, notes.

    `notes` is what JSON holds (infinities and NaN included): leases, best loss, patience, repeats.
    """

    round: int
    arrays: dict[str, "NDArray[Any]"]
    strategy: dict[str, "NDArray[Any]"] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


def write(parent: Path, checkpoint: Checkpoint, event: Event) -> Path:
    """Write `parent/NNNN` with the round's event in its manifest; return it. On StoreError nothing of it is left."""
    final = parent / f"{checkpoint.round:04d}"
    temporary = parent / f".{final.name}.{os.getpid()}"
    with plainly(f"save the checkpoint of round {checkpoint.round} in {parent}"):
        try:
            parent.mkdir(exist_ok=True)
            sweep(parent)
            temporary.mkdir()
            _fill(temporary, checkpoint, event)
            _put(temporary, final)
            sync(parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return final


def read(directory: Path) -> tuple[Checkpoint, Event]:
    """Return a checkpoint and its round's event. Raises StoreError where a sum does not match or a file is missing."""
    manifest = read_manifest(directory)
    for name, expected in manifest["sums"].items():
        if _sum(directory / name) != expected:
            raise StoreError(f"{directory / name} is damaged: its SHA-256 is not the one in {MANIFEST}.")
    arrays = read_npz(directory / ARRAYS, manifest["dtypes"]["arrays"])
    strategy = read_npz(directory / STATE, manifest["dtypes"]["strategy"])
    return Checkpoint(manifest["round"], arrays, strategy, manifest["notes"]), manifest["event"]


def read_manifest(directory: Path) -> dict[str, Any]:
    """Return the manifest: round, event, notes, sums, dtypes. Raises StoreError where it is missing or damaged."""
    path = directory / MANIFEST
    with plainly(f"read {path}"):
        text = path.read_bytes()
    try:
        signed = json.loads(text)
        body: dict[str, Any] = signed["checkpoint"]
        whole = signed["sha256"] == _digest(body)
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise StoreError(f"{path} is damaged: it does not match its own SHA-256.")
    return body


def numbers(parent: Path) -> list[int]:
    """Return the rounds that have a checkpoint, whole or damaged, in ascending order."""
    return sorted(int(entry.name) for entry in parent.glob("*") if entry.name.isdecimal()) if parent.is_dir() else []


def prune(parent: Path, newest: int, keep: int, *, also: Collection[int] = ()) -> None:
    """Remove all but the newest `keep` up to `newest`, and `also`; later ones are of a course that was given up."""
    kept = [number for number in numbers(parent) if number <= newest][-keep:]
    for number in set(numbers(parent)) - {*kept, *also}:
        shutil.rmtree(parent / f"{number:04d}", ignore_errors=True)


def sweep(parent: Path) -> None:
    """Remove what a killed writer left half-written."""
    for entry in parent.glob(".[0-9]*"):
        shutil.rmtree(entry, ignore_errors=True)


def write_npz(path: Path, arrays: Mapping[str, "NDArray[Any]"]) -> dict[str, str]:
    """Write arrays of any names as `numpy.load` reads them, and onto the disk.

    Return the types that NumPy's format cannot name (bfloat16, ...), by array; their bytes are stored as unsigned.
    """
    import numpy as np

    foreign = {name: array.dtype.name for name, array in arrays.items() if array.dtype.isbuiltin != NATIVE}
    with path.open("wb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, array in arrays.items():
                stored = array.view(f"u{array.itemsize}") if name in foreign else array
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asanyarray(stored), allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    return foreign


def read_npz(path: Path, foreign: Mapping[str, str]) -> dict[str, "NDArray[Any]"]:
    """Return the arrays that `write_npz` wrote, in their order; `foreign` is what it returned."""
    import ml_dtypes  # noqa: F401  registers bfloat16 and the float8s under their names
    import numpy as np

    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name].view(foreign[name]) if name in foreign else stored[name] for name in stored.files}


def _fill(directory: Path, checkpoint: Checkpoint, event: Event) -> None:
    arrays = write_npz(directory / ARRAYS, checkpoint.arrays)
    strategy = write_npz(directory / STATE, checkpoint.strategy)
    body = {
        "round": checkpoint.round,
        "event": event,
        "notes": checkpoint.notes,
        "dtypes": {"arrays": arrays, "strategy": strategy},
        "sums": {name: _sum(directory / name) for name in (ARRAYS, STATE)},
    }
    path = directory / MANIFEST
    path.write_text(json.dumps({"sha256": _digest(body), "checkpoint": body}, indent=1))
    sync(path)
    sync(directory)


def _put(temporary: Path, final: Path) -> None:
    if final.exists():  # a damaged one, or of a course that was given up
        shutil.rmtree(final)
    temporary.rename(final)


def _sum(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return "missing"


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
