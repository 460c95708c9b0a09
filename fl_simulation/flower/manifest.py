"""A Flower app's folder: its manifest and configuration, read, and its two halves, imported."""

import importlib
import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from fl_common.errors import SettingsError
from fl_common.settings import schema as settings_

OURS = "fl_client.app:app"
ASSIGNMENT = re.compile(r"""([\w.\-]+)\s*=\s*('[^']*'|"[^"]*"|\S+)""")


@dataclass(frozen=True)
class App:
    """A Flower app's folder, read: where its two halves are, and its configuration."""

    folder: Path
    serverapp: str
    clientapp: str
    config: Mapping[str, settings_.Scalar]


def read_app(folder: Path, run_config: str) -> App:
    """Read a Flower app's manifest and lay `run_config` over its config. Raises SettingsError where it is none."""
    manifest = folder / "pyproject.toml"
    try:
        tool = tomllib.loads(manifest.read_text()).get("tool", {})
        app = tool["flwr"]["app"]
        components = app["components"]
        halves = components["serverapp"], components["clientapp"]
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"--app {folder} is no Flower app: {manifest} must have [tool.flwr.app.components] with serverapp and "
            f"clientapp ({type(error).__name__}: {error})."
        ) from None
    return App(folder.resolve(), *halves, config=_flat(app.get("config", {})) | parsed(run_config))


def parsed(text: str) -> dict[str, settings_.Scalar]:
    """Return the run config in `text`, `key=value` pairs or the path of a TOML file. Raises SettingsError."""
    if text.endswith(".toml"):
        return _flat(settings_.read_toml(Path(text)))
    rest = ASSIGNMENT.sub("", text).strip(" ,")
    if rest:
        raise SettingsError(f"--run-config takes key=value pairs with spaces between; got {rest!r}")
    return {key: _value(value) for key, value in ASSIGNMENT.findall(text)}


def _value(text: str) -> settings_.Scalar:
    try:
        value: settings_.Scalar = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return value


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, settings_.Scalar]:
    flat: dict[str, settings_.Scalar] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def find_in(app: App) -> None:
    """Put an app's folder on the import path: last, so that it hides no library; first where its app is installed."""
    folder = str(app.folder)
    packages = {path.partition(".")[0].partition(":")[0] for path in (app.serverapp, app.clientapp)}
    elsewhere = [each for each in sys.path if Path(each).resolve() != app.folder]
    installed = any(PathFinder.find_spec(package, elsewhere) is not None for package in packages)
    sys.path.insert(0 if installed else len(sys.path), folder)


def load(path: str, kind: type[Any]) -> Any:
    """Return what `path`, "module:name", gives. Raises SettingsError where that is no object of this kind."""
    module, _, attribute = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # importing a user's module may raise anything
        raise SettingsError(f"the app's {path} does not import: {type(error).__name__}: {error}") from error
    if not isinstance(found, kind):
        raise SettingsError(f"the app's {path} must be a {kind.__name__}; got {type(found).__name__}")
    return found
