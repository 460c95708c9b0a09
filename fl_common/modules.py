"""A user's Python module, from a path or a name; what goes wrong in it is told in one sentence."""

import difflib
import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from fl_common.errors import TaskError
from fl_common.tasks import BUILT_IN


def load(name: str) -> ModuleType:
    """Return the module that `name` gives: the path of a Python file, or a dotted name found from the current folder.

    A file's folder is put on the import path, so that it may import its neighbours. Loaded once for a process.
    Raises TaskError where there is none, or where it does not import: with the error's type, text and line.
    """
    if _is_path(name):
        return _at(name)
    _find_from_here()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise TaskError(_unknown(name)) from None
        raise TaskError(_import_failure(name, error)) from error
    except Exception as error:
        raise TaskError(_import_failure(name, error)) from error


def check(name: str) -> None:
    """Raise TaskError where `load` would find no file or no such package. Nothing of the module is run."""
    if _is_path(name):
        _path_of(name)
        return
    _find_from_here()
    try:
        found = importlib.util.find_spec(name.partition(".")[0])
    except ValueError:  # an empty name, or a module without a spec
        found = None
    if found is None:
        raise TaskError(_unknown(name))


def _is_path(name: str) -> bool:
    return name.endswith(".py") or "/" in name or "\\" in name


def _find_from_here() -> None:
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))


def _path_of(name: str) -> Path:
    path = Path(name).expanduser().resolve()
    if not path.is_file():
        raise TaskError(f"task {name}: there is no file {path}. Give the path of a Python file, or one of {BUILT_IN}.")
    return path


def _at(name: str) -> ModuleType:
    path = _path_of(name)
    loaded = sys.modules.get(path.stem)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded
    # The stem, so that Keras finds a user's classes again by module; another where the stem is taken.
    spec = importlib.util.spec_from_file_location(path.stem if loaded is None else f"task_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise TaskError(f"task {name}: {path} is no Python file. Its name must end in .py.")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        raise TaskError(_import_failure(name, error)) from error
    return module


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, BUILT_IN, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"Built in: {', '.join(BUILT_IN)}; or give ./my_task.py or a module."
    return f"unknown task {name!r}: it is not built in, and no module has that name. {hint}"


def _import_failure(name: str, error: BaseException) -> str:
    return f"task {name} does not import: {type(error).__name__}: {error} ({_place(error)}). Mend it and start again."


def _place(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    own = [frame for frame in frames if frame.filename != __file__] or frames
    return f"{own[-1].filename}, line {own[-1].lineno}" if own else "no line is known"
