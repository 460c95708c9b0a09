"""`fl check`: what would go wrong with a task and its data, in seconds, without starting anything."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from fl_cli import options
from fl_cli.checkup import Checkup
from fl_cli.events_only import apart
from fl_cli.words import duration


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("check")(check)


def check(
    task: options.Task = None,
    data: Annotated[
        str, typer.Option(help="A client's own data: npz, csv, parquet, or a folder of images. (default: the task's)")
    ] = "",
    label: Annotated[str, typer.Option(help="Label column of --data. (default: label)")] = "",
    assign: options.Assignments = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Build, load, train two batches as a client and as a simulation do, evaluate and export: a line for each step."""
    from fl_simulation.engine.onednn import TensorFlow

    settings = options.gather({"task": task}, assignments=assign, config=config)
    TensorFlow.imported()
    code = 0
    with apart() as out:
        for found in Checkup(settings, data, label).run():
            code = code or found.exit_code
            mark = "no" if found.exit_code else "--" if found.missing else "ok"
            line = f"{mark}  {found.step + ':':<18} {found.text}  ({duration(found.seconds)})"
            typer.echo(json.dumps(asdict(found)) if as_json else line, file=out)
    if code:
        raise typer.Exit(code)
