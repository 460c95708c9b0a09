"""The runs of a store as rows: what each is, how far it came and how well; the columns that a terminal has room for."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import typer

from fl_cli.words import measure, metrics, unused
from fl_common.errors import ParterreError
from fl_common.tasks.user_modules import short_name
from fl_common.trust.untrusted_text import clean
from fl_server.store.runs import Run, Status

COLOURS: dict[Status, str] = {"finished": "green", "running": "cyan", "failed": "red", "interrupted": "yellow"}
ALWAYS = ("run", "status", "rounds")
LESS = ("began", "number", "task", "strategy")  # after the metrics, as far as there is room
WIDTH = 80  # of a pipe
LONGEST_REASON = 300


def summary(run: Run, numbers: Mapping[Path, int]) -> dict[str, Any]:
    """Return a run in one row: what it is, how far it came and how well. One that is damaged says why.

    numbers: those by which a server knows its runs, by their directories.
    """
    row: dict[str, Any] = {"run": run.name, "run_dir": str(run.directory)}
    row["number"] = numbers.get(run.directory.resolve())
    try:
        row |= _row(run)
        error = run.damage
    except ParterreError as damage:
        error = str(damage)
    except Exception as damage:  # noqa: BLE001  a file may hold anything, and must not hide the other runs
        error = f"it cannot be read: {type(damage).__name__}: {damage}"
    return row | ({"status": "damaged", "error": error} if error else {})


def by_time(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows as their runs began, the newest last; those of which nobody knows when come first."""
    return sorted(rows, key=lambda row: str(row.get("began") or ""))


def echo(rows: Sequence[dict[str, Any]]) -> None:
    """Print rows in aligned columns, then a line on each run that failed, is damaged, or waits."""
    found = list(dict.fromkeys(name for row in rows for name in row.get("metrics") or {}))
    names = sorted(found, key=lambda name: ("loss", "accuracy").index(name) if name in ("loss", "accuracy") else 2)
    lines = [{column: _cell(column, row) for column in (*ALWAYS, *names, *LESS)} for row in rows]
    widths = {column: max(len(column), *(len(line[column]) for line in lines)) for column in lines[0]}
    told = [column for column in (*names, *LESS) if any(line[column] != "-" for line in lines)]
    columns, right = _fitting(widths, told), ("rounds", *names)

    def aligned(line: dict[str, str]) -> list[str]:
        return [line[c].rjust(widths[c]) if c in right else line[c].ljust(widths[c]) for c in columns]

    typer.echo(typer.style("  ".join(aligned({column: column for column in columns})).rstrip(), dim=True))
    for line in lines:
        cells = aligned(line)
        cells[1] = typer.style(cells[1], fg=COLOURS.get(line["status"], "red"))  # type: ignore[call-overload]
        typer.echo("  ".join(cells).rstrip())
    for row in rows:
        for text in _notes(row):
            typer.echo(f"{row['run']}: {text}")


def room() -> int:
    """Return the columns of the terminal; 80 of a pipe."""
    return shutil.get_terminal_size((WIDTH, 0)).columns if sys.stdout.isatty() else WIDTH


def _row(run: Run) -> dict[str, Any]:
    settings, outline = run.settings, run.outline()
    status, last = run.status_after(outline.last), outline.round
    row: dict[str, Any] = {"status": status, "task": settings.task, "strategy": settings.strategy}
    row |= {"waits_for": outline.waits_for} if status == "running" else {}
    row |= {"reason": str(outline.last.get("error") or "")} if status == "failed" else {}
    row |= {
        "round": last.get("round", 0),
        "rounds": settings.rounds,
        "began": outline.first.get("time"),
    }
    row |= {key: last[key] for key in ("unused", "partitions") if status == "running" and key in last}
    found = metrics(last)
    return row | {key: found.get(key) for key in ("accuracy", "loss")} | {"metrics": found}


def _cell(column: str, row: dict[str, Any]) -> str:
    if column == "rounds":
        return f"{row['round']}/{row['rounds']}" if "rounds" in row else "-"
    if column in ("task", "strategy"):
        return short_name(str(row[column])) if row.get(column) else "-"
    if column == "began":
        return _moment(str(row.get("began") or ""))
    if column in ("run", "status", "number"):
        return str(row.get(column) or "-")
    found = row.get("metrics")  # a model without a metric has none; a run without a round has not got it yet
    return measure(found[column]) if found and column in found else "" if found else "-"


def _moment(time: str) -> str:
    try:
        return f"{datetime.fromisoformat(time).astimezone():%b %d %H:%M}"
    except (ValueError, OverflowError):
        return "-"


def _fitting(widths: dict[str, int], wanted: Sequence[str]) -> list[str]:
    """Return the columns that there is room for, in their order."""
    left = room() + 2 - sum(widths[column] + 2 for column in ALWAYS)
    columns = list(ALWAYS)
    for column in wanted:
        if widths[column] + 2 <= left:
            left -= widths[column] + 2
            columns.append(column)
    return columns


def _notes(row: dict[str, Any]) -> list[str]:
    """Return what is to be said of a run that failed, is damaged, or goes on."""
    notes = [f"damaged: {clean(row['error'])}"] if row.get("error") else []
    if row["status"] == "failed":
        first = str(row.get("reason") or "nothing says why").partition("\n")[0]
        notes.append(f"failed: {clean(first, most=LONGEST_REASON)}")
    notes += [row["waits_for"]] if row.get("waits_for") else []
    return [*notes, unused(row)] if row.get("unused") else notes
