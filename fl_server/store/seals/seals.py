"""The seal of a run: its small files as they were written, the sums of the others, and an HMAC of the user who made it.

What is lost or changed is found by it, and healed where the seal, or a checkpoint, holds what it was.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fl_common.errors import SecretError, StoreError
from fl_server.store.disk import whole_writes
from fl_server.store.seals import run_key

log = logging.getLogger(__name__)

FILE, SETTINGS, DATA = "seal.json", "settings.toml", "data.json"
TEXTS = (SETTINGS, DATA)  # the files that are kept whole
LARGEST = 64 << 20  # bytes of a seal that is read


@dataclass(frozen=True)
class Seal:
    """`texts`: the files that are kept whole, by name; `sums`: SHA-256 of others, by their path within the run.

    `log`: the mark (fl_server.store.log.log_marks) of the log of events when the run was finished, or its log rebuilt.
    """

    texts: Mapping[str, str] = field(default_factory=dict)
    simulated: bool = False
    sums: Mapping[str, str] = field(default_factory=dict)
    log: str = ""

    def with_text(self, name: str, text: str) -> "Seal":
        """Return the seal with one more file that is kept whole."""
        return replace(self, texts={**self.texts, name: text})

    def with_sums(self, directory: Path, names: Iterable[str]) -> "Seal":
        """Return the seal with the sums that these files of the run have now."""
        return replace(self, sums={**self.sums, **{name: sum_of(directory / name) for name in names}})

    def is_whole(self, directory: Path, name: str) -> bool:
        """Say whether a file has the sum that it was sealed with; False for one that was not."""
        return name in self.sums and sum_of(directory / name) == self.sums[name]


def write(directory: Path, seal: Seal, *, sign: bool) -> bool:
    """Write a run's seal, and return whether it is signed: where this user can have no key it is not, and logged."""
    body = _bytes(asdict(seal))
    signature = _signed(body) if sign else ""
    content = {"seal": asdict(seal), "sha256": hashlib.sha256(body).hexdigest(), "hmac": signature}
    with whole_writes.plainly(f"write {directory / FILE}"):
        whole_writes.replace(directory / FILE, json.dumps(content, indent=1).encode())
    return bool(signature)


def read(directory: Path) -> tuple[Seal, bool]:
    """Return a run's seal, and whether it is this user's. Raises StoreError where it is missing or damaged."""
    path = directory / FILE
    content = whole_writes.content(path, LARGEST)
    try:
        signed = json.loads(content)
        body = _bytes(signed["seal"])
        if signed["sha256"] != hashlib.sha256(body).hexdigest():
            raise ValueError("another sum")
        return _seal(signed["seal"]), run_key.is_mac(body, str(signed["hmac"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise StoreError(f"{path} is damaged: it does not match its own SHA-256.") from None


def sum_of(path: Path) -> str:
    """Return the SHA-256 of a regular file; "missing" where there is none that can be read."""
    try:
        if not path.is_file():
            return "missing"
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return "missing"


def sum_of_text(text: str) -> str:
    """Return the SHA-256 that a file with this text has."""
    return hashlib.sha256(text.encode()).hexdigest()


def of(value: Any) -> Seal:
    """Return the seal that a checkpoint keeps; an empty one where that is none."""
    try:
        return _seal(value)
    except (KeyError, TypeError):
        return Seal()


def _seal(value: Any) -> Seal:
    seal = Seal(value["texts"], value["simulated"], value["sums"], value["log"])
    for each in (seal.texts, seal.sums):
        if not isinstance(each, dict) or not all(isinstance(item, str) for item in each.values()):
            raise TypeError("not a seal")
    if not set(seal.texts) <= set(TEXTS):  # they are written again where they are lost
        raise TypeError("not a seal")
    if not isinstance(seal.simulated, bool) or not isinstance(seal.log, str):
        raise TypeError("not a seal")
    return seal


def _signed(body: bytes) -> str:
    try:
        return run_key.mac(body, run_key.made())
    except SecretError as error:
        log.warning("a run is made without the seal of its user, and will ask for --trust: %s", error)
        return ""


def _bytes(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
