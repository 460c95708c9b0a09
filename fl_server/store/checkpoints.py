"""Checkpoints of a run on disk: a directory a round, written whole or not at all, and verified when it is read.

No pickle: arrays are `.npy` members of an `.npz`, everything else is JSON in the manifest, with SHA-256 sums of all.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl_common.errors import StoreError
from fl_server.store.disk.npz import read_npz, write_npz
from fl_server.store.disk.whole_writes import content, plainly, sync
from fl_server.store.log.events_log import Event

if TYPE_CHECKING:  # every command knows the run store, and `fl --help` has no time for NumPy
    from numpy.typing import NDArray

ARRAYS, STATE, MANIFEST = "arrays.npz", "state.npz", "manifest.json"
ROUNDS = "rounds.jsonl"  # beside the checkpoints: the events of all rounds, each with its sum
LARGEST_MANIFEST = 1 << 30  # bytes: the history of very many clients


@dataclass(frozen=True)
class Checkpoint:
    """Everything that the rounds after `round` depend on: the model by variable name, the strategy's state, notes.

    `notes` is what JSON holds (infinities and NaN included): leases, best loss, patience, repeats.
    """

    round: int
    arrays: dict[str, "NDArray[Any]"]
    strategy: dict[str, "NDArray[Any]"] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


def write(parent: Path, checkpoint: Checkpoint, event: Event, *, run: Mapping[str, Any] | None = None) -> Path:
    """Write `parent/NNNN` with the round's event in its manifest; return it. On StoreError nothing of it is left.

    run: what the manifest keeps of the run itself, so that the run outlasts its other files.
    """
    final = parent / f"{checkpoint.round:04d}"
    temporary = parent / f".{final.name}.{os.getpid()}"
    with plainly(f"save the checkpoint of round {checkpoint.round} in {parent}"):
        try:
            parent.mkdir(exist_ok=True)
            sweep(parent)
            temporary.mkdir()
            _fill(temporary, checkpoint, event, run or {})
            _put(temporary, final)
            sync(parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return final


def read(directory: Path) -> tuple[Checkpoint, Event]:
    """Return a checkpoint and its round's event. Raises StoreError where a sum does not match or a file is missing."""
    manifest = read_manifest(directory)
    for name in (ARRAYS, STATE):
        if _sum(directory / name) != manifest["sums"].get(name):
            raise StoreError(f"{directory / name} is damaged: its SHA-256 is not the one in {MANIFEST}.")
    arrays = read_npz(directory / ARRAYS, manifest["dtypes"]["arrays"])
    strategy = read_npz(directory / STATE, manifest["dtypes"]["strategy"])
    return Checkpoint(manifest["round"], arrays, strategy, manifest["notes"]), manifest["event"]


def read_manifest(directory: Path) -> dict[str, Any]:
    """Return the manifest: round, event, notes, sums, dtypes, run. Raises StoreError where it is missing or damaged."""
    path = directory / MANIFEST
    text = content(path, LARGEST_MANIFEST)
    try:
        signed = json.loads(text)
        body: dict[str, Any] = signed["checkpoint"]
        whole = signed["sha256"] == _digest(body)
    except (ValueError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise StoreError(f"{path} is damaged: it does not match its own SHA-256.")
    if not _is_manifest(body, directory.name):
        raise StoreError(f"{path} is damaged: it is not the manifest of round {directory.name}.")
    return body


def numbers(parent: Path) -> list[int]:
    """Return the rounds that have a checkpoint, whole or damaged, in ascending order."""
    return sorted(int(entry.name) for entry in parent.glob("*") if entry.name.isdecimal()) if parent.is_dir() else []


def note(parent: Path, event: Event) -> None:
    """Note a round's event beside the checkpoints: it stays when its checkpoint is removed."""
    line = json.dumps({"sha256": _digest(event), "event": event}, allow_nan=False)
    path = parent / ROUNDS
    with plainly(f"write to {path}"), path.open("ab") as file:
        file.write(b"\n" * bool(file.tell()) + line.encode())  # begins a line of its own, also after one that was torn


def noted(parent: Path) -> list[Event]:
    """Return the events of rounds that were noted and are whole, in the order of noting."""
    path = parent / ROUNDS
    if not path.is_file():
        return []
    with plainly(f"read {path}"):
        lines = path.read_bytes().split(b"\n")
    return [event for line in lines if (event := _whole(line)) is not None]


def of_run(parent: Path) -> dict[str, Any]:
    """Return what the newest manifest that can be read keeps of the run itself, and its "event"; {} without one."""
    for number in reversed(numbers(parent)):
        with suppress(StoreError):
            manifest = read_manifest(parent / f"{number:04d}")
            kept = manifest.get("run")
            if isinstance(kept, dict) and kept:
                return {**kept, "event": manifest["event"]}
    return {}


def prune(parent: Path, newest: int, keep: int, *, also: Collection[int] = ()) -> None:
    """Remove all but the newest `keep` up to `newest`, and `also`; later ones are of a course that was given up."""
    kept = [number for number in numbers(parent) if number <= newest][-keep:]
    for number in set(numbers(parent)) - {*kept, *also}:
        shutil.rmtree(parent / f"{number:04d}", ignore_errors=True)


def sweep(parent: Path) -> None:
    """Remove what a killed writer left half-written."""
    for entry in parent.glob(".[0-9]*"):
        shutil.rmtree(entry, ignore_errors=True)


def _whole(line: bytes) -> Event | None:
    try:
        noted = json.loads(line)
        event: Event = noted["event"]
        return event if noted["sha256"] == _digest(event) and type(event["round"]) is int else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _is_manifest(body: Any, name: str) -> bool:
    """Say whether what matches its own sum is a manifest of that round at all."""
    if not isinstance(body, dict) or type(body.get("round")) is not int or f"{body['round']:04d}" != name:
        return False
    event, dtypes = (value if isinstance(value, dict) else {} for value in (body.get("event"), body.get("dtypes")))
    return (
        all(isinstance(body.get(key), dict) for key in ("notes", "sums"))
        and all(isinstance(event.get(key), str) for key in ("event", "time"))
        and all(isinstance(dtypes.get(key), dict) for key in ("arrays", "strategy"))
    )


def _fill(directory: Path, checkpoint: Checkpoint, event: Event, run: Mapping[str, Any]) -> None:
    arrays = write_npz(directory / ARRAYS, checkpoint.arrays)
    strategy = write_npz(directory / STATE, checkpoint.strategy)
    body = {
        "round": checkpoint.round,
        "event": event,
        "notes": checkpoint.notes,
        "run": dict(run),
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
        if not path.is_file():
            return "missing"
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return "missing"


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
