"""A user's Python module, from a path or a name; what goes wrong in it is told in one sentence."""

import difflib
import importlib
import importlib.util
import sys
import traceback
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

from fl_common.errors import Shown, TaskError
from fl_common.tasks import keras_settings
from fl_common.tasks.builtin import BUILT_IN
from fl_common.trust.disclosure import type_of

BUNDLED = "fl_user_task"  # the folder in a Flower app bundle that a task's files travel in


def load(name: str, what: str = "task") -> ModuleType:
    """Return the module that `name` gives: the path of a Python file, or a dotted name found from the current folder.

    A file's folder is put last on the import path, so that it may import its neighbours; a file of a package is loaded
    as its module. A path that begins with BUNDLED is one below the app bundle. Loaded once for a process.
    What it sets for all of Keras is noted with it. Raises TaskError where there is none, or where it does not import:
    with the error's type, text and line.
    """
    with keras_settings.noted() as found:
        module = _load(name, what)
    keras_settings.keep(module, found)
    return module


def _load(name: str, what: str) -> ModuleType:
    if is_path(name):
        return _at(name, what)
    _find_from_here()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise TaskError(_unknown(name)) from None
        raise _import_failure(name, what, error) from error
    except Exception as error:
        raise _import_failure(name, what, error) from error


def check(name: str, what: str = "task") -> None:
    """Raise TaskError where `load` would find no file, no such package, or no Python. Nothing of the module is run."""
    if is_path(name):
        _parse(name, what)
        return
    _find_from_here()
    try:
        found = importlib.util.find_spec(name.partition(".")[0])
    except ValueError:  # an empty name, or a module without a spec
        found = None
    if found is None:
        raise TaskError(_unknown(name))


def left_behind(error: BaseException) -> str:
    """Say which file of its folder a task that came in a bundle lacks; "" where the error is another."""
    again = "did not travel with it. Submit it again with --include"
    if isinstance(error, ModuleNotFoundError):
        file = f"{str(error.name).replace('.', '/')}.py"
        return f"the task imports {error.name}, which is not installed at the server and {again} {file}"
    if isinstance(error, FileNotFoundError):
        here, wanted = Path(__file__).parents[2] / BUNDLED, Path(str(error.filename))
        file = str(wanted.relative_to(here)) if wanted.is_relative_to(here) else ""
        return f"the task reads {file} of its folder, which {again} {file}" if file else ""
    return ""


def is_path(name: str) -> bool:
    """Say whether a task or a strategy's module is named by the path of its file."""
    return name.endswith(".py") or "/" in name or "\\" in name


def _find_from_here() -> None:
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))


def path_of(name: str, what: str = "task") -> Path:
    """Return the file that a task's, or a strategy's, path names. Raises TaskError where there is none."""
    base = Path(__file__).parents[2] if name.startswith(f"{BUNDLED}/") else Path()
    path = (base / Path(name).expanduser()).resolve()
    if path.is_dir():
        raise TaskError(f"{what} {name} is a folder. Give the path of a Python file in it.")
    if not path.is_file():
        others = f", or one of {BUILT_IN}" if what == "task" else ""
        raise TaskError(f"{what} {name}: there is no file {path}. Give the path of a Python file{others}.")
    if path.suffix != ".py":
        raise TaskError(f"{what} {name}: {path} is not a Python file. Its name must end in .py.")
    return path


def place_of(path: Path) -> tuple[Path, str]:
    """Return the folder that a file's module is found from, and the module's name: a dotted one within a package."""
    parts, folder = [path.stem], path.parent
    while path.stem.isidentifier() and folder.name.isidentifier() and (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    return folder, ".".join(parts)


def short_name(task: str) -> str:
    """Return a task's name without its folders or packages."""
    return Path(task).stem if is_path(task) else task.rpartition(".")[2]


def _parse(name: str, what: str) -> None:
    path = path_of(name, what)
    try:
        compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise _import_failure(name, what, error) from None
    except OSError as error:
        raise TaskError(f"{what} {name}: {path} cannot be read: {error.strerror}.") from None


def _at(name: str, what: str) -> ModuleType:
    path = path_of(name, what)
    root, dotted = place_of(path)
    for folder in (str(root), str(path.parent)):
        if folder not in sys.path:
            sys.path.append(folder)
    try:
        return _imported(path, dotted) if root != path.parent else _loaded(path)
    except Exception as error:
        raise _import_failure(name, what, error) from error


def _imported(path: Path, dotted: str) -> ModuleType:
    """Import a file of a package as its module; as one that stands alone where another package has that name."""
    top = dotted.partition(".")[0]
    own = path.parents[dotted.count(".") - 1]
    spec = importlib.util.find_spec(dotted) if _is_free(top, own) else None
    return importlib.import_module(dotted) if spec is not None and spec.origin == str(path) else _loaded(path)


def _loaded(path: Path) -> ModuleType:
    """Load a file under its stem, so that Keras finds a user's classes again by module; another where that is taken."""
    name = path.stem if _is_free(path.stem, path) else f"task_{path.stem}"
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _is_free(name: str, own: Path) -> bool:
    """Say whether a name is taken by nothing but `own`, a file or a package: a task may be called keras.py."""
    if (loaded := sys.modules.get(name)) is not None:
        return str(own) in (getattr(loaded, "__file__", None), *getattr(loaded, "__path__", ()))
    top = name.partition(".")[0]
    elsewhere = [each for each in sys.path if not own.is_relative_to(Path(each).resolve())]
    return top not in sys.stdlib_module_names and PathFinder.find_spec(top, elsewhere) is None


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, BUILT_IN, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"Built in: {', '.join(BUILT_IN)}; or give ./my_task.py or a module."
    return f"unknown task {name!r}: it is not built in, and no module has that name. {hint}"


def _import_failure(name: str, what: str, error: BaseException) -> TaskError:
    if name.startswith(f"{BUNDLED}/") and (behind := left_behind(error)):
        return TaskError(behind)
    return TaskError(
        "{what} {name} does not import: {kind}: {error} ({place}). Mend it and start again.",
        what=Shown(what),
        name=name,
        kind=Shown(type_of(error)),
        error=(error.msg if isinstance(error, SyntaxError) else str(error)) or "no reason given",
        place=place(error, name),
    )


def place(error: BaseException, name: str) -> str:
    """Return file and line of an error that a task or a strategy led to: in its own folder, where one is."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    frames = [frame for frame in frames if frame.filename != __file__] or frames
    folder = Path(name).expanduser().resolve().parent if is_path(name) else Path.cwd()
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(folder)] or frames
    return f"{own[-1].filename}, line {own[-1].lineno}" if own else "no line is known"
