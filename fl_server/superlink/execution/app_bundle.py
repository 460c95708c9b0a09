"""The Flower app bundle (FAB) of a run: our four packages, and the files of the person's own task where they travel."""

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import fl_common
from fl_common.errors import StrategyError
from fl_common.settings.schema import Settings
from fl_common.tasks.user_modules import BUNDLED
from fl_server.superlink.execution.task_files import TaskFiles

PACKAGES = ("fl_common", "fl_client", "fl_server", "strategies")
CONTENT = ".info/CONTENT"  # Flower's list of a bundle's files: path, SHA-256, bits


def build(
    settings: Settings, task: TaskFiles | None = None, strategy: TaskFiles | None = None
) -> tuple[bytes, str, Settings]:
    """Return the bundle, its SHA-256 and the settings to run it with.

    The files of a task, and of a strategy, travel inside the bundle, for the server (and stock supernodes); resident
    clients never run them and are started with a `--task` of their own. Without them the settings name what is where
    the run is. Raises StrategyError where the two have different files of one name.
    """
    root = Path(fl_common.__file__).parent.parent
    paths = sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}
    if task is not None:
        files |= {f"{BUNDLED}/{name}": path.read_bytes() for name, path in task.files.items()}
        settings = settings.model_copy(update={"task": f"{BUNDLED}/{task.task}"})
    if strategy is not None:
        _apart(task, strategy)
        files |= {f"{BUNDLED}/{name}": path.read_bytes() for name, path in strategy.files.items()}
        named = settings.strategy.rpartition(":")[2]
        settings = settings.model_copy(update={"strategy": f"{BUNDLED}/{strategy.task}:{named}"})
    bundle = _archive({"pyproject.toml": manifest().encode()} | files)
    return bundle, hashlib.sha256(bundle).hexdigest(), settings


def _apart(task: TaskFiles | None, strategy: TaskFiles) -> None:
    for name, path in strategy.files.items():
        other = task.files.get(name) if task is not None else None
        if other is not None and other.read_bytes() != path.read_bytes():
            raise StrategyError(
                f"{path}, of the strategy, and {other}, of the task, have one name. Rename one of them."
            )


def _archive(files: Mapping[str, bytes]) -> bytes:
    """Return a FAB of exactly these files: Flower's builder leaves out some by their names, such as test_x.py."""
    from flwr.cli.build import write_to_zip

    lines = [f"{name},{hashlib.sha256(content).hexdigest()},{len(content) * 8}" for name, content in files.items()]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            write_to_zip(archive, name, content)
        write_to_zip(archive, CONTENT, "\n".join(lines))
    return buffer.getvalue()


def manifest() -> str:
    """Return the bundle's pyproject.toml: the app's entry points and the default of every setting."""
    import tomli_w

    return tomli_w.dumps(
        {
            "project": {
                "name": "parterre",
                "version": fl_common.__version__,
                "description": "Federated learning for Keras models",
                "license": "Apache-2.0",
                "dependencies": ["flwr>=1.32.1,<1.33"],
            },
            "tool": {
                "flwr": {
                    "app": {
                        "publisher": "parterre",
                        "components": {"serverapp": "fl_server.app:app", "clientapp": "fl_client.app:app"},
                        "config": Settings().run_config(),
                    }
                }
            },
        }
    )
