"""A run's app bundle, unpacked for its ServerApp: whole or not at all, and checked before each use.

Flower's own installer copies file by file into the app's final folder, and takes any folder that is there as whole: a
process killed in between, or another run of the same bundle, would leave later runs half an app.
"""

import hashlib
import io
import logging
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from fl_common.errors import StoreError
from fl_common.settings.schema import Settings
from fl_server.store.disk.disk_wait import Patience
from fl_server.store.disk.whole_writes import plainly
from fl_server.superlink.execution.app_bundle import CONTENT

log = logging.getLogger(__name__)

INSTALLER = "install_from_fab"  # Flower's name of what `install` takes the place of
ATTEMPTS = 10


def install(bundle: bytes, install_dir: Path | None = None, skip_prompt: bool = True) -> Path:
    """Return the folder of the unpacked app, made anew where it is missing or damaged. Raises StoreError."""
    from flwr.cli.config_utils import get_fab_metadata
    from flwr.common.config import get_project_dir

    folder = get_project_dir(*get_fab_metadata(bundle), hashlib.sha256(bundle).hexdigest())
    if not is_whole(folder, bundle):
        Patience(Settings().disk_wait_seconds, lambda event: log.warning(event["reason"])).wait(
            lambda: _unpack(bundle, folder)
        )
    return folder


def _unpack(bundle: bytes, folder: Path) -> None:
    with plainly(f"unpack the run's app into {folder}"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder.parent) as aside:
            made = Path(aside) / folder.name
            with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
                archive.extractall(made)  # which keeps every name below `made`
            _put(made, folder, bundle)


def is_whole(folder: Path, bundle: bytes) -> bool:
    """Say whether a folder has every file of a bundle as it is there."""
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        lines = archive.read(CONTENT).decode().splitlines()
    try:
        sums = {name: wanted for name, wanted, _ in (line.rsplit(",", 2) for line in lines)}
        return all(hashlib.sha256((folder / name).read_bytes()).hexdigest() == sums[name] for name in sums)
    except OSError:
        return False


def use(app: Any) -> None:
    """Have Flower's ServerApp process install its bundle this way."""
    if not hasattr(app, INSTALLER):
        raise StoreError(f"{app.__name__} has no {INSTALLER}: this is another release of Flower than Parterre is for.")
    setattr(app, INSTALLER, install)


def _put(made: Path, folder: Path, bundle: bytes) -> None:
    """Move an unpacked app to its place. Another process may do the same at the same moment: either is whole."""
    for attempt in range(ATTEMPTS):
        with suppress(FileNotFoundError):  # no damaged one is there, or the other process has moved it away
            folder.rename(made.parent / f"damaged-{attempt}")
        with suppress(OSError):
            made.rename(folder)
        if is_whole(folder, bundle):
            return
    raise StoreError(f"the app in {folder} is damaged and cannot be replaced. Remove it, and submit the run again.")
