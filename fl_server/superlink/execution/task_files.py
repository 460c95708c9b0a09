"""The files of a task that go to the server with it: the modules that it imports from its folder, and what is named.

A site's data lie beside its task. So nothing travels but Python modules that the task imports by a statement, and what
`--include` names; what looks like data, or is large, only with `--force`.
"""

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

from fl_common.errors import TaskError
from fl_common.tasks import user_modules

TEXT = (".py", ".json", ".toml", ".yaml", ".yml", ".txt", ".md", ".cfg", ".ini")  # what does not look like data
LARGE = 1 << 20  # bytes
MOST = 8 << 20  # bytes of all; Flower takes bundles of 10 MB


@dataclass(frozen=True)
class TaskFiles:
    """A task's file and those that go with it, by their paths below its folder; `task` is its own."""

    task: str
    files: Mapping[str, Path]

    def __str__(self) -> str:
        names = ", ".join(sorted(self.files, key=lambda name: (name != self.task, name)))
        return f"{names} ({sum(path.stat().st_size for path in self.files.values()):,} bytes)"


def of(task: str, include: Sequence[str] = (), *, force: bool = False) -> TaskFiles:
    """Return the files of a task that is named by its path.

    include: files, folders or patterns, below the task's folder; force: they may look like data, or be large.
    Raises TaskError where one is missing, is outside the folder, or may not go unasked.
    """
    path = user_modules.path_of(task)
    root, _ = user_modules.place_of(path)
    found = [*_imported(path, root), *(each for name in include for each in _named(name, path.parent, root))]
    files = {each.relative_to(root).as_posix(): each for each in dict.fromkeys(found)}
    _check(files, force=force)
    return TaskFiles(path.relative_to(root).as_posix(), files)


def _imported(task: Path, root: Path) -> list[Path]:
    """Return the task's file and every module of its folder that it imports, directly or not."""
    found: list[Path] = [*_packages_of(task, root), task]
    for path in found:  # which grows
        for name in _names_in(path, root):
            found += [each for each in _files_of(name, dict.fromkeys((root, task.parent))) if each not in found]
    return found


def _packages_of(path: Path, root: Path) -> list[Path]:
    between = [folder / "__init__.py" for folder in path.parents if folder != root and folder.is_relative_to(root)]
    return [each for each in between if each.is_file()]


def _names_in(path: Path, root: Path) -> Iterator[str]:
    """Yield the full names of what a file imports. Raises TaskError where it is not Python."""
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (SyntaxError, ValueError) as error:
        where = f"line {error.lineno}: {error.msg}" if isinstance(error, SyntaxError) else str(error)
        raise TaskError(f"{path} is not Python ({where}). Correct it and start again.") from None
    package = path.parent.relative_to(root).parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            start = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{start}.{alias.name}".strip(".") for alias in node.names)
        elif isinstance(node, ast.Call) and _is_import(node.func) and node.args:
            name = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
            yield from [name] if isinstance(name, str) else []


def _is_import(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in ("import_module", "__import__")


def _files_of(name: str, folders: Iterable[Path]) -> Iterator[Path]:
    """Yield the files below the folders that importing a module reads; none where it is installed, which goes first."""
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts) or _is_installed(parts[0], folders):
        return
    for folder in folders:
        for length in range(1, len(parts) + 1):
            place = folder.joinpath(*parts[:length])
            yield from (each for each in (place.with_name(f"{place.name}.py"), place / "__init__.py") if each.is_file())


def _is_installed(name: str, folders: Iterable[Path]) -> bool:
    own = {Path.cwd(), *folders}
    elsewhere = [each for each in sys.path if each and Path(each).resolve() not in own]
    return name in sys.stdlib_module_names or PathFinder.find_spec(name, elsewhere) is not None


def _named(name: str, folder: Path, root: Path) -> list[Path]:
    path = Path(name).expanduser()
    places = [path] if path.is_absolute() else [folder / path, root / path, Path.cwd() / path]
    for place in places:
        found = sorted(_below(place)) or sorted(each for each in _matching(place) if each.is_file())
        inside = [each.parent.resolve() / each.name for each in found]
        if inside and all(each.is_relative_to(root) for each in inside):
            return inside
        if inside:
            raise TaskError(f"--include {name}: {inside[0]} is not below {root}, the task's folder. Move it there.")
    raise TaskError(f"--include {name}: there is no such file in {folder}, the task's folder.")


def _below(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
    elif place.is_dir():
        hidden = ("__pycache__", ".")
        found = (each for each in place.rglob("*") if each.is_file())
        yield from (each for each in found if not any(p.startswith(hidden) for p in each.relative_to(place).parts))


def _matching(place: Path) -> Iterator[Path]:
    if not any(letter in place.name for letter in "*?["):
        return iter(())
    return place.parent.glob(place.name)


def _check(files: Mapping[str, Path], *, force: bool) -> None:
    for name, path in files.items():
        if not name.isprintable() or "," in name:  # Flower's list of a bundle's files has a line each, with commas
            raise TaskError(f"{name!r} cannot travel: a comma or a control character is in its name. Rename it.")
        size = path.stat().st_size
        why = "looks like data" if path.suffix.lower() not in TEXT else f"has {size:,} bytes" if size > LARGE else ""
        if why and not force:
            raise TaskError(f"{path} {why}, and would go to the server. Add --force if that is what you want.")
    total = sum(path.stat().st_size for path in files.values())
    if total > MOST:
        raise TaskError(f"the task's files have {total:,} bytes together; a run carries at most {MOST:,}.")
