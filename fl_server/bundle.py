"""The Flower app bundle (FAB) of a run: our four packages, and the person's own task file where there is one."""

import hashlib
from pathlib import Path

import fl_common
from fl_common.errors import TaskError
from fl_common.settings import Settings
from fl_common.task import BUNDLED

PACKAGES = ("fl_common", "fl_client", "fl_server", "strategies")


def build(settings: Settings) -> tuple[bytes, str, Settings]:
    """Return the bundle, its SHA-256 and the settings to run it with.

    A task given as a path travels inside the bundle, for the server (and stock supernodes); resident clients never
    run it and are started with a `--task` of their own.
    """
    from flwr.cli.build import build_fab_from_files

    files: dict[str, bytes | Path] = {}
    root = Path(fl_common.__file__).parent.parent
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            files[path.relative_to(root).as_posix()] = path
    if settings.task.endswith(".py"):
        check(settings)
        path = Path(settings.task).expanduser()
        files[f"{BUNDLED}/__init__.py"] = b""
        files[f"{BUNDLED}/{path.name}"] = path
        settings = settings.model_copy(update={"task": f"{BUNDLED}.{path.stem}"})
    files["pyproject.toml"] = manifest().encode()
    bundle, _ = build_fab_from_files(files)
    return bundle, hashlib.sha256(bundle).hexdigest(), settings


def check(settings: Settings) -> None:
    """Raise TaskError where the settings name a task file that is not there."""
    if settings.task.endswith(".py") and not Path(settings.task).expanduser().is_file():
        raise TaskError(f"task file {settings.task} does not exist. Give the path of a Python file.")


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
