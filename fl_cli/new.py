"""`fl new NAME`: a task to begin with, as a file that runs as it is and a test beside it."""

import importlib.util
import sys
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from fl_common.errors import TaskError
from fl_server.store.disk.whole_writes import plainly

TEMPLATES = "templates"  # package data beside this file: {name} in them stands for the task's name
PLACE = "{name}"


class Template(StrEnum):
    """What the data are."""

    TABULAR = "tabular"
    IMAGES = "images"
    TEXT = "text"
    TIMESERIES = "timeseries"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("new")(new)


def new(
    name: Annotated[str, typer.Argument(help="Name of the task, or the path of its file: my_task, tasks/my_task.py.")],
    template: Annotated[Template, typer.Option(help="What the data are.")] = Template.TABULAR,
) -> None:
    """Write a task that runs as it is, NAME.py, and a test of it, test_NAME.py. No file is overwritten."""
    path = _path(name)
    test = path.with_name(f"test_{path.name}")
    for each in (path, test):
        if each.exists():
            raise TaskError(f"{each} exists, and is not overwritten. Choose another name, or move it away.")
    with plainly(f"write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, template.value)
        _write(test, "test")
    shown = path if path.is_absolute() else f"./{path}"
    typer.echo(f"{path}\n{test}\nnext: fl check --task {shown}")


def _path(name: str) -> Path:
    """Return the task's file. Raises TaskError for a name that Python cannot import, or that hides another module."""
    path = Path(name.removesuffix(".py") + ".py")
    if not path.stem.isidentifier():
        raise TaskError(f"a task's name has letters, digits and _, and begins with a letter; got {path.stem!r}.")
    if path.stem in sys.stdlib_module_names or importlib.util.find_spec(path.stem) is not None:
        raise TaskError(f"{path.stem} is a module that is installed, and a task of this name would hide it.")
    return path


def _write(path: Path, template: str) -> None:
    text = resources.files("fl_cli").joinpath(TEMPLATES, f"{template}.py.txt").read_text("utf-8")
    with path.open("x", encoding="utf-8") as file:
        file.write(text.replace(PLACE, path.stem.removeprefix("test_") if template == "test" else path.stem))
