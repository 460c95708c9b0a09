"""Built-in tasks, one file each. The registry is here; a module is imported only when its task is made."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fl_common.settings.schema import Settings
    from fl_common.tasks.task import Task

BUILT_IN = ("digits", "mnist", "fashion_mnist", "cifar10")


def make(name: str, settings: "Settings") -> "Task":
    """Return the built-in task `name`, one of BUILT_IN, with the model and the split that `settings` ask for."""
    task: Task = import_module(f"fl_common.tasks.builtin.{name}").make(settings)
    return task
