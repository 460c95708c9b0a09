"""Environment variables: each that a command reads is known, and one that nothing reads is refused."""

import subprocess
import sys

import click
import pytest
import typer

from fl_cli import variables
from fl_cli.main import register
from fl_common.errors import SettingsError


def read_by(command: click.Command) -> set[str]:
    inner = command.commands.values() if isinstance(command, click.Group) else []
    mine = {name for each in command.params for name in ([each.envvar] if isinstance(each.envvar, str) else [])}
    return mine.union(*map(read_by, inner))


def test_every_variable_that_a_command_reads_is_known() -> None:
    assert read_by(typer.main.get_command(register())) <= variables.known()


@pytest.mark.parametrize(("name", "near"), [("FL_ROUND", "FL_ROUNDS"), ("FL_SERVERS", "FL_SERVER")])
def test_a_variable_that_means_nothing_is_refused_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(SettingsError, match=rf"{name} is none of Parterre's. Did you mean {near}\b"):
        variables.check({name: "5", "FL_ROUNDS": "3", "PATH": ""})


def test_a_command_ends_before_it_begins_where_a_variable_is_misspelt(tmp_path) -> None:
    command = [sys.executable, "-m", "fl_cli.main", "runs", "--store", str(tmp_path)]
    done = subprocess.run(command, env={"FL_ROUND": "5"}, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == SettingsError("").exit_code
    assert done.stderr.startswith("error: the environment variable FL_ROUND")
