"""Writes docs/reference/settings.md and commands.md from the code, so that they cannot differ from it.

Run `python docs/make_reference.py` after changing a setting or a command; tests/test_docs.py says when it is due.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
import typer

from fl_cli.main import register
from fl_common.processes.environment import DEFAULTS
from fl_common.settings.schema import ENVIRONMENT_PREFIX, Settings

REFERENCE = Path(__file__).parent / "reference"
GROUP = re.compile(r"    # (?P<group>[A-Z].*)|    (?P<field>\w+): ")
NOTE = "<!-- Written by docs/make_reference.py from the code. Change it there. -->"
DEFAULT = re.compile(r" ?\[default: (.*)\]$")
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}

SETTINGS_HEAD = f"""# Settings

{NOTE}

Every setting of a run. One is given, later ones winning over earlier ones, by a TOML file (`--config FILE`), in the
environment (`{ENVIRONMENT_PREFIX}` and its name in capitals, `{ENVIRONMENT_PREFIX}LOCAL_EPOCHS=5`), by a flag of
the command where it has one (`--rounds 5`), or by `--set name=value`. An unknown name is an error that names the
nearest known one.

A run keeps its settings in its `settings.toml`, from which `fl resume` goes on; there only its own flags and `--set`
change them. `fl up --config RUN/settings.toml --clients N --out OTHER` runs the same
again.

An argument of the strategy's constructor that is no setting can be given by `--set` as well, or as
`--set strategy.name=value`, or in a table `[strategy_arguments]` of the TOML file.

`fl up` sets `min_clients` and `partitions` to the number of its clients, where nothing else says otherwise.
"""

COMMANDS_HEAD = f"""# Commands

{NOTE}

A command exits with 0 when it did what it was asked; with 2 for a mistake in what it was given (an option, a setting, a
task, data, a strategy); with 3 for a run that finished with gaps (a round had the updates of less than half of the
clients that it asked), unless `--allow-partial` is given; with 1 for any other error. Stopped by a signal, `fl up` and
`fl resume` exit with 128 and the
signal's number, `fl run`, which then only stops following, with 130, `fl server` and `fl client` with 0. An error goes
to standard error and says what was expected, what came and what to do.

Where they are not set already, `fl` sets for itself and all it starts:
{", ".join(f"`{name}={value}`" for name, value in DEFAULTS.items())}.
`KERAS_BACKEND` is set to `tensorflow`, and what a `keras.json` says does not count: set such things in the task.
"""


def settings_page() -> str:
    """Return the page of all settings, a table for each group of the source."""
    parts = [SETTINGS_HEAD]
    for group, names in groups():
        parts.append(f"## {group}\n\n| name | type | default | |\n|---|---|---|---|")
        parts[-1] += "".join(f"\n{_setting(name)}" for name in names) + "\n"
    return "\n".join(parts)


def groups() -> list[tuple[str, list[str]]]:
    """Return the names of the settings by the comments that stand above them in the source."""
    found: list[tuple[str, list[str]]] = []
    for line in inspect.getsource(Settings).splitlines():
        match = GROUP.match(line)
        if match and match["group"]:
            found.append((match["group"], []))
        elif match and match["field"] in Settings.model_fields:
            found[-1][1].append(match["field"])
    return found


def _setting(name: str) -> str:
    field = Settings.model_fields[name]
    default = f"`{field.default}`".lower() if isinstance(field.default, bool) else f"`{field.default}`"
    shown = "empty" if field.default == "" else default
    return f"| `{name}` | {_kind(field)} | {shown} | {_cell(field.description or '')} |"


def _kind(field: Any) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(field.annotation))
    limits = [(sign, getattr(rule, key, None)) for rule in field.metadata for key, sign in BOUNDS.items()]
    bounds = [f"{sign} {limit}" for sign, limit in limits if limit is not None]
    return " ".join([field.annotation.__name__, ", ".join(bounds)]).strip()


def commands_page() -> str:
    """Return the page of all commands, with the arguments and options of each."""
    root = typer.main.get_command(register())
    return "\n".join([COMMANDS_HEAD, *(_command(name, command) for name, command in _commands(root, "fl"))])


def _commands(group: click.Command, prefix: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in getattr(group, "commands", {}).items():
        yield f"{prefix} {name}", command
        yield from _commands(command, f"{prefix} {name}")


def _command(name: str, command: click.Command) -> str:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    usage = " ".join([name, *(_metavar(each) for each in arguments), "[OPTIONS]"])
    lines = [f"## {name}\n", f"`{usage}`\n", f"{command.help}\n"]
    if command.params:
        lines.append("| | | default | environment |\n|---|---|---|---|")
        lines[-1] += "".join(f"\n{_parameter(each)}" for each in command.params) + "\n"
    return "\n".join(lines)


def _parameter(parameter: Any) -> str:
    help_ = parameter.help or ""
    told = DEFAULT.search(help_)
    default = told[1] if told else _default(parameter)
    name = f"`{_metavar(parameter)}`" if parameter.param_type_name == "argument" else _option(parameter)
    environment = f"`{parameter.envvar}`" if parameter.envvar else ""
    return f"| {name} | {_cell(DEFAULT.sub('', help_))} | {_cell(default)} | {environment} |"


def _option(parameter: Any) -> str:
    flag = getattr(parameter, "is_flag", False)
    return f"`{parameter.opts[0]}`" if flag else f"`{parameter.opts[0]} {_metavar(parameter)}`"


def _metavar(parameter: Any) -> str:
    if parameter.metavar or parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    choices = getattr(parameter.type, "choices", None)
    kind = {"integer range": "INTEGER"}.get(parameter.type.name, parameter.type.name.upper())
    return " or ".join(str(getattr(choice, "value", choice)) for choice in choices) if choices else kind


def _default(parameter: Any) -> str:
    if isinstance(parameter.show_default, str):
        return parameter.show_default
    default = getattr(parameter.default, "value", parameter.default)
    hidden = default in (None, "", False) or parameter.required
    return "" if hidden else f"`{default}`"


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


PAGES: dict[str, Callable[[], str]] = {"settings.md": settings_page, "commands.md": commands_page}

if __name__ == "__main__":
    for file, page in PAGES.items():
        (REFERENCE / file).write_text(page())
