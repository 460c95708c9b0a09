"""Plain tables for lists of things, and moments and lengths of time as people say them."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer

from fl_common.errors import SettingsError

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
STEPS = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def table(head: Sequence[str], rows: Iterable[Sequence[str]], empty: str) -> None:
    """Print rows under their heads, in columns as wide as they need be; `empty` (to stderr) where there are none."""
    rows = [tuple(row) for row in rows]
    if not rows:
        typer.echo(empty, err=True)
        return
    widths = [max(len(row[column]) for row in [tuple(head), *rows]) for column in range(len(head))]
    for row in [tuple(head), *rows]:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_json(value: Mapping[str, Any]) -> None:
    """Print one object on one line."""
    typer.echo(json.dumps(value))


def ago(moment: float | None, now: float) -> str:
    """Return "3 min ago", "now" for less than a second, "never" for None."""
    if moment is None:
        return "never"
    return f"{_length(now - moment)} ago" if now - moment >= 1 else "now"


def until(moment: float, now: float) -> str:
    """Return "in 3 min", or how long ago it was."""
    return f"in {_length(moment - now)}" if moment - now >= 1 else ago(moment, now)


def seconds_of(text: str, option: str) -> float:
    """Return the seconds of "90s", "30m", "1h" or "7d". Raises SettingsError, which names the option."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if not found or float(found[1]) <= 0:
        raise SettingsError(f"{option} takes a number and s, m, h or d, such as 1h; got {text!r}")
    return float(found[1]) * UNITS[found[2]]


def _length(seconds: float) -> str:
    for size, unit in STEPS:
        if seconds >= size:
            return f"{int(seconds / size)} {unit}"
    return "0 s"
