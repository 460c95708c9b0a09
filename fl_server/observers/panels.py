"""The panels of a run's picture: a measure with its spread over the clients; seconds, bytes and fleet time a round."""

import zlib
from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

from fl_server.store.log.events_log import Event

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOSS, ACCURACY, OTHERS = (
    "#c2476a",
    "#2f7d4f",
    ("#7a5ba6", "#2f8585", "#9a6b2f", "#5a5f9e", "#6b7d2f"),
)  # of the model's metrics
UP, DOWN, MARK, GREY = "#d9983a", "#8f6526", "#b3261e", "#8a8f98"
NEGLIGIBLE = 0.01  # share of a round
PHASES = {"train": "#1f4e79", "evaluate": "#5b8fc0", "aggregate": "#9fc3e3", "commit": "#6b7c8c", "other": "#d5d8dc"}
TELLING = 10  # examples of the usual client from which on the spread of its metrics says something
LONGEST_NAME = 28  # characters of a title beside its legend
STEEP = 20.0  # a loss that falls by more than this factor is drawn on a logarithmic axis


def colours(names: Sequence[str]) -> dict[str, str]:
    """Return the colour of each metric: the same for a metric wherever it is drawn, as far as two can be told apart."""
    found = {name: colour for name, colour in (("loss", LOSS), ("accuracy", ACCURACY)) if name in names}
    for name in sorted(set(names) - set(found)):
        first = zlib.crc32(name.encode()) % len(OTHERS)
        ordered = [*OTHERS[first:], *OTHERS[:first]]
        found[name] = next((each for each in ordered if each not in found.values()), ordered[0])
    return found


def measure(axes: "Axes", rounds: list[Event], key: str, colour: str) -> None:
    """A line of the global model's metric; behind it the spread over the clients, quartiles darker than the range."""
    axes.set_title(short(key))
    points = [(event["round"], number) for event in rounds if (number := value(event, key)) is not None]
    if not points:
        _empty(axes, f"this run has no {key}")
        return
    spread = _spread(rounds, key)
    if spread:
        x, low, lower, _, upper, high = zip(*_visible(spread), strict=True)
        axes.fill_between(x, low, high, color=colour, alpha=0.10, linewidth=0, label="clients, all")
        axes.fill_between(x, lower, upper, color=colour, alpha=0.20, linewidth=0, label="clients, middle half")
    x, y = zip(*points, strict=True)
    where = {"test": "test set", "clients": "mean of clients"}.get(rounds[-1].get("evaluated_on", ""), "model")
    axes.plot(x, y, color=colour, linewidth=2.2, solid_capstyle="round", label=where)
    axes.plot(x[-1], y[-1], marker="o", color=colour, markersize=6.5, markeredgecolor="white", markeredgewidth=1.2)
    limit(axes, key, list(y), spread)
    _label_last(axes, x[-1], y[-1], colour)
    _legend(axes)


def short(name: str) -> str:
    """Return a metric's name as a title: as it was compiled, in its middle cut where it is long."""
    if name in ("loss", "accuracy"):
        return name.capitalize()
    return name if len(name) <= LONGEST_NAME else f"{name[:12]}…{name[-15:]}"


def value(event: Event, key: str) -> float | None:
    """Return a metric of a round; None where it has none."""
    found = event.get(key) if key in ("loss", "accuracy") else (event.get("metrics") or {}).get(key)
    return float(found) if isinstance(found, int | float) and isfinite(found) else None


def limit(axes: "Axes", key: str, values: list[float], spread: list[tuple[float, ...]]) -> None:
    """Accuracies stand between 0 and 1; a loss that falls far on a logarithmic axis, so that late progress shows."""
    everything = [*values, *(number for row in spread for number in row[1:])]
    if key == "accuracy":
        axes.set_ylim(bottom=0, top=1.0)
    elif key == "loss" and min(everything) > 0 and max(values) > STEEP * min(values):
        axes.set_yscale("log")
        axes.set_ylim(bottom=min(everything) * 0.8, top=max(everything) * 1.25)
    elif min(everything) >= 0:
        axes.set_ylim(bottom=0, top=max(everything) * 1.06 or 1.0)
    else:
        room = 0.12 * (max(everything) - min(everything) or 1.0)
        axes.set_ylim(bottom=min(everything) - room, top=max(everything) + room)


def _label_last(axes: "Axes", x: float, y: float, colour: str) -> None:
    """Write the last value where there is room: under a point in the upper half of the panel, else over it."""
    height = axes.transAxes.inverted().transform(axes.transData.transform((x, y)))[1]
    above = 14 if height < 0.5 else -18
    text = f"{y:.3f}" if 1e-3 <= abs(y) < 1000 or y == 0 else f"{y:.2g}"
    axes.annotate(text, (x, y), (4, above), textcoords="offset points", ha="right", color=colour, fontweight="bold")


def _visible(spread: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """Give the band of a single round some width."""
    return spread if len(spread) > 1 else [(number + side, *rest) for number, *rest in spread for side in (-0.1, 0.1)]


def _spread(rounds: list[Event], key: str) -> list[tuple[float, ...]]:
    """Return (round, minimum, quartiles, maximum); nothing of clients with a handful of examples each."""
    spreads = [
        (event["round"], (event.get("spread") or {}).get(key))
        for event in rounds
        if (event.get("spread_examples") or TELLING) >= TELLING
    ]
    return [(number, *values) for number, values in spreads if values and None not in values]


def seconds(axes: "Axes", rounds: list[Event]) -> None:
    """Stacked bars of the phases; what a round took beyond them is "other"."""
    axes.set_title("Seconds")
    numbers = [event["round"] for event in rounds]
    bottom = [0.0] * len(rounds)
    for name, heights in _phases(rounds).items():
        if any(heights):
            axes.bar(numbers, heights, bottom=bottom, width=_width(rounds), color=PHASES[name], linewidth=0, label=name)
            bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    _cut(axes, numbers, bottom)
    if any(bottom):
        _legend(axes)


def _phases(rounds: list[Event]) -> dict[str, list[float]]:
    phases = [event.get("phases") or {} for event in rounds]
    heights = {name: [float(phase.get(name) or 0.0) for phase in phases] for name in PHASES}
    known = [sum(values) for values in zip(*heights.values(), strict=True)]
    totals = [float(event.get("seconds") or 0.0) for event in rounds]
    rest = [total - part for total, part in zip(totals, known, strict=True)]
    heights["other"] = [left if left > NEGLIGIBLE * total else 0.0 for left, total in zip(rest, totals, strict=True)]
    return heights


def _cut(axes: "Axes", numbers: list[int], totals: list[float]) -> None:
    """Scale to the usual round; one that took far longer (the first compiles the model) is cut, its length written."""
    usual = sorted(totals)[-max(2, len(totals) // 20)] if len(totals) > 4 else max(totals)
    top = (min(max(totals), 1.5 * usual) or 1.0) * 1.12
    axes.set_ylim(top=top)
    for number, total in zip(numbers, totals, strict=True):
        if total > top:
            axes.annotate(
                f"{total:.1f} s",
                (number + _width(numbers) / 2, top),
                (4, -4),
                textcoords="offset points",
                va="top",
                fontsize=9,
            )


def traffic(axes: "Axes", rounds: list[Event]) -> None:
    """Bytes from the clients go up, bytes to them go down; a mark where replies were rejected."""
    axes.set_title("Bytes")
    numbers = [event["round"] for event in rounds]
    up, down = ([float(event.get(key) or 0) for event in rounds] for key in ("bytes_up", "bytes_down"))
    axes.bar(numbers, up, width=_width(rounds), color=UP, linewidth=0, label="up")
    below = [-count for count in down]
    axes.bar(numbers, below, width=_width(rounds), color=DOWN, linewidth=0, label="down")
    axes.axhline(0, color="#c4c8ce", linewidth=1)
    span = max(up) + max(down) or 1.0
    _rejected(axes, rounds, max(up) + 0.04 * span)
    axes.set_ylim(-max(down) - 0.08 * span, max(up) + 0.12 * span)
    axes.yaxis.set_major_formatter(_bytes_format())
    _legend(axes)


def _rejected(axes: "Axes", rounds: list[Event], top: float) -> None:
    marked = [(event["round"], event["rejected"]) for event in rounds if event.get("rejected")]
    if not marked:
        return
    axes.plot(
        [number for number, _ in marked],
        [top] * len(marked),
        color=MARK,
        linestyle="",
        marker="v",
        markersize=7,
        label=f"{sum(count for _, count in marked)} rejected",
    )


def fleet_time(axes: "Axes", rounds: list[Event]) -> None:
    """Stacked bars of a simulated fleet's time in each round."""
    numbers, bottom = [event["round"] for event in rounds], [0.0] * len(rounds)
    name, unit = _unit(max(event["fleet"]["seconds"] for event in rounds))
    axes.set_title(f"Fleet time, {name}")
    for phase in ("train", "evaluate"):
        heights = [event["fleet"][phase] / unit for event in rounds]
        axes.bar(numbers, heights, bottom=bottom, width=_width(rounds), color=PHASES[phase], linewidth=0, label=phase)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    _legend(axes)


def over_fleet_time(axes: "Axes", rounds: list[Event]) -> None:
    """The global model's accuracy, or its loss where it has none, against the fleet's clock."""
    key = "accuracy" if any(event.get("accuracy") is not None for event in rounds) else "loss"
    name, unit = _unit(rounds[-1]["fleet"]["clock"])
    axes.set_title(f"{key.capitalize()} over fleet time")
    axes.set_xlabel(f"{name} of fleet time")
    points = [(event["fleet"]["clock"] / unit, event[key]) for event in rounds if event.get(key) is not None]
    if not points:
        _empty(axes, f"this run has no {key}")
        return
    x, y = zip(*points, strict=True)
    axes.plot(x, y, color=colours([key])[key], linewidth=2.2, solid_capstyle="round")
    axes.set_ylim(bottom=0, top=1.0 if key == "accuracy" else None)
    axes.set_xlim(left=0)


def _unit(most: float) -> tuple[str, float]:
    """Return the unit in which the longest time is easily read, and its seconds."""
    units = (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))
    return next(((name, unit) for name, unit in units if most >= 2 * unit), units[-1])


def _width(rounds: Sequence[object]) -> float:
    return 0.8 if len(rounds) <= 60 else 1.0


def _legend(axes: "Axes") -> None:
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 1.03),
        ncols=5,
        columnspacing=1.1,
        handletextpad=0.5,
        handlelength=1,
        handleheight=1,
        borderaxespad=0,
    )


def _bytes_format() -> Any:
    from matplotlib.ticker import EngFormatter, FuncFormatter

    unsigned = EngFormatter(unit="B")
    return FuncFormatter(lambda count, _: unsigned(abs(count)))


def _empty(axes: "Axes", text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY)
    axes.set_yticks([])
