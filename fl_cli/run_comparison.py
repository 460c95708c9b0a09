"""Runs side by side: what each was set to, how far it came and how well; as numbers, and as cells of one table."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import typer

from fl_cli.run_table import room
from fl_cli.words import duration, measure, metrics, size
from fl_common.errors import SettingsError, StoreError
from fl_common.settings.best_metric import Measure, parse
from fl_common.tasks.user_modules import short_name
from fl_common.trust.untrusted_text import clean
from fl_server.store.log import events_log
from fl_server.store.log.events_log import Event
from fl_server.store.runs import Run

OF_ITS_OWN = ("task", "strategy", "rounds")  # rows whether they differ or not
WHEREABOUTS = ("name", "store", "out", "resume")  # not what a run does
GAP = "  "
LONGEST_HEAD = 26  # characters of a row's name in a line


@dataclass(frozen=True)
class Side:
    """One run of a comparison, under a label that no other one has; `names` are its metrics, the loss first."""

    label: str
    run: Run
    rounds: list[Event]
    names: list[str]


def labels(runs: Sequence[Run]) -> list[str]:
    """Return a label for each run: its name, or its directory where two have that name. Raises SettingsError for one
    run that is named twice.
    """
    names, places = [run.name for run in runs], [run.directory.resolve() for run in runs]
    if twice := next((name for name, place in zip(names, places, strict=True) if places.count(place) > 1), None):
        raise SettingsError(f"run {twice} is named more than once. Name different runs.")
    return [clean(run.directory if names.count(run.name) > 1 else run.name) for run in runs]


def side(label: str, run: Run) -> Side:
    """Return a run's side of a comparison. Raises StoreError where it has no round."""
    rounds = events_log.rounds(run.each_event())
    if not rounds:
        raise StoreError(
            f"run {label} cannot be compared: no round of it was completed. Leave it out, or compare it later."
        )
    found = dict.fromkeys(name for event in rounds for name in metrics(event))
    ordered = sorted(found, key=lambda name: ("loss", "accuracy").index(name) if name in ("loss", "accuracy") else 2)
    return Side(label, run, rounds, [name for name in ordered if _values(rounds, name)])


def shared(sides: Sequence[Side]) -> list[str]:
    """Return the metrics that every run has. Raises StoreError where there are none."""
    found = [name for name in sides[0].names if all(name in side.names for side in sides)]
    if not found:
        each = "; ".join(f"{side.label} has {', '.join(side.names) or 'none'}" for side in sides)
        raise StoreError(f"these runs cannot be compared: they share no metric ({each}). Name runs of one task.")
    return found


def differing(sides: Sequence[Side]) -> list[str]:
    """Return the settings in which the runs differ, in the order of the settings' page."""
    dumps = [side.run.settings.model_dump() for side in sides]
    names = [name for name in dumps[0] if name not in (*OF_ITS_OWN, *WHEREABOUTS)]
    return [name for name in names if any(dump[name] != dumps[0][name] for dump in dumps)]


def facts(side: Side, metrics: Iterable[str], settings: Iterable[str]) -> dict[str, Any]:
    """Return a run's side of the comparison in numbers. Bytes and seconds are sums over its rounds."""
    known, rounds = side.run.settings.model_dump(), side.rounds
    clock = (rounds[-1].get("fleet") or {}).get("clock")
    return {
        "run": side.label,
        "run_dir": str(side.run.directory),
        "status": "damaged" if (damage := side.run.damage) else side.run.status,
        **({"error": damage} if damage else {}),
        "task": known["task"],
        "strategy": known["strategy"],
        "round": rounds[-1]["round"],
        "rounds": known["rounds"],
        "settings": {name: known[name] for name in settings},
        "metrics": {name: _course(side, name) for name in metrics},
        "evaluated_on": str(rounds[-1].get("evaluated_on") or ""),
        **{key: _sum(rounds, key) for key in ("bytes_up", "bytes_down", "seconds")},
        **({"fleet_seconds": clock} if clock else {}),
    }


def echo(found: Sequence[Mapping[str, Any]]) -> None:
    """Print runs as one table: a column for each run, or a line where that alone fits, or columns below one another."""
    grid = [["run", *(each["run"] for each in found)], *_rows(found)]
    lines = [list(line) for line in zip(*grid, strict=True)]
    if _width(grid) <= room() or _width(lines) > room():
        _echo_in_blocks(grid)
    else:
        _echo(lines)
    for each in found:
        if each.get("error"):
            typer.echo(f"{each['run']}: damaged: {clean(each['error'])}")


def only_in_some(sides: Sequence[Side]) -> str:
    """Return one line on metrics that some runs have and others lack; "" where there are none."""
    parts = []
    for name in dict.fromkeys(name for side in sides for name in side.names):
        having = [side.label for side in sides if name in side.names]
        parts += [f"{name} (only {', '.join(having)})"] if len(having) < len(sides) else []
    return f"not compared: {', '.join(parts)}" if parts else ""


def _values(rounds: Iterable[Event], name: str) -> list[tuple[int, float]]:
    """Return the rounds that have a metric, each with its value."""
    found = ((event["round"], Measure(name, higher=False).of(event)) for event in rounds)
    return [(number, value) for number, value in found if value is not None]


def _course(side: Side, name: str) -> dict[str, Any]:
    """Return the last value of a metric and, where it is known which is better, its best one with the round."""
    values = _values(side.rounds, name)
    course: dict[str, Any] = {"last": values[-1][1]}
    if (wanted := _direction(side, name)) is not None:
        number, value = min(values, key=lambda pair: -pair[1] if wanted.higher else pair[1])
        course |= {"best": value, "best_round": number}
    return course


def _direction(side: Side, name: str) -> Measure | None:
    """Return which is better: as a setting of the run says, or else as Keras's own metrics are called."""
    settings = side.run.settings
    told = [each for each in (settings.measure_counted(), settings.measure_kept()) if each and each.metric == name]
    try:
        return told[0] if told else parse(name)
    except SettingsError:
        return None


def _sum(rounds: Sequence[Event], key: str) -> float:
    return sum(event.get(key) or 0 for event in rounds)


def _rows(found: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    rows = [
        ["status", *(str(each["status"]) for each in found)],
        *([key, *(clean(short_name(str(each[key]))) for each in found)] for key in ("task", "strategy")),
        ["rounds", *(f"{each['round']}/{each['rounds']}" for each in found)],
        *([name, *(_setting(each["settings"][name]) for each in found)] for name in found[0]["settings"]),
    ]
    for name in found[0]["metrics"]:
        courses = [each["metrics"][name] for each in found]
        rows.append([name, *(measure(course["last"]) for course in courses)])
        if any("best" in course for course in courses):
            rows.append([f"{GAP}best (round)", *map(_best, courses)])
    if len({each["evaluated_on"] for each in found}) > 1:
        rows.append(["evaluated on", *(each["evaluated_on"] or "-" for each in found)])
    for key, head in (("bytes_up", "bytes up"), ("bytes_down", "bytes down")):
        rows.append([head, *(size(each[key]) for each in found)])
    rows.append(["time", *(duration(each["seconds"]) for each in found)])
    if any("fleet_seconds" in each for each in found):
        rows.append(["fleet time", *(duration(each.get("fleet_seconds")) for each in found)])
    return rows


def _setting(value: Any) -> str:
    return clean(value) or "(empty)"


def _best(course: Mapping[str, Any]) -> str:
    return f"{measure(course['best'])} ({course['best_round']})" if "best" in course else "-"


def _width(grid: Sequence[Sequence[str]]) -> int:
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _echo(grid: Sequence[Sequence[str]]) -> None:
    """Print lines of cells, the first one as a head; a cell may have several lines."""
    widths = [max(len(line) for cell in column for line in cell.split("\n")) for column in zip(*grid, strict=True)]
    for number, row in enumerate(grid):
        for parts in zip_longest(*(cell.split("\n") for cell in row), fillvalue=""):
            text = GAP.join(part.ljust(width) for part, width in zip(parts, widths, strict=True)).rstrip()
            typer.echo(typer.style(text, bold=number == 0))


def _echo_in_blocks(grid: Sequence[Sequence[str]]) -> None:
    """Print columns, those for which there is no room beside the others below them under the same heads."""
    head, *columns = zip(*grid, strict=True)
    head = _wrapped(head, LONGEST_HEAD)
    left = room() - _width([[cell] for cell in _lines(head)])
    columns = [_wrapped(column, left // 2 - len(GAP)) for column in columns]
    while columns:
        block = [columns.pop(0)]
        while columns and sum(_room_of(column) for column in (*block, columns[0])) <= left:
            block.append(columns.pop(0))
        _echo(list(zip(head, *block, strict=True)))
        typer.echo("" if columns else None, nl=bool(columns))


def _room_of(column: Sequence[str]) -> int:
    return len(GAP) + max(map(len, _lines(column)))


def _lines(column: Sequence[str]) -> list[str]:
    return [line for cell in column for line in cell.split("\n")]


def _wrapped(column: Sequence[str], most: int) -> tuple[str, ...]:
    return tuple("\n".join(_pieces(cell, most)) for cell in column)


def _pieces(cell: str, most: int) -> list[str]:
    return textwrap.wrap(cell, most, drop_whitespace=False) if len(cell) > most else [cell]
