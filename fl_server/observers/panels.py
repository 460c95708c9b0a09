"""The panels of a run's picture: a measure with its spread over the clients; seconds, bytes and fleet time a round."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fl_server.events import Event

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GREEN, BLUE, ROSE, OCHRE, GREY = "#2f7d4f", "#3b6ea8", "#c2476a", "#d9983a", "#8a8f98"
NEGLIGIBLE = 0.01  # share of a round
PHASES = {"train": GREEN, "evaluate": BLUE, "aggregate": OCHRE, "commit": ROSE, "other": "#d5d8dc"}


def measure(axes: "Axes", rounds: list[Event], key: str, colour: str) -> None:
    """A line of the global model's measure; behind it the spread over the clients, quartiles darker than the range."""
    axes.set_title(key.capitalize())
    points = [(event["round"], event[key]) for event in rounds if event.get(key) is not None]
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
    _label_last(axes, x[-1], y[-1], 10 if key == "loss" else -16, colour)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], loc="upper right" if key == "loss" else "lower right")
    highest = max([*y, *(row[-1] for row in spread)])
    axes.set_ylim(bottom=0, top=1.0 if key == "accuracy" else highest * 1.06 or 1.0)


def _label_last(axes: "Axes", x: float, y: float, above: float, colour: str) -> None:
    axes.annotate(
        f"{y:.3f}", (x, y), (4, above), textcoords="offset points", ha="right", color=colour, fontweight="bold"
    )


def _visible(spread: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """Give the band of a single round some width."""
    return spread if len(spread) > 1 else [(number + side, *rest) for number, *rest in spread for side in (-0.1, 0.1)]


def _spread(rounds: list[Event], key: str) -> list[tuple[float, ...]]:
    spreads = [(event["round"], (event.get("spread") or {}).get(key)) for event in rounds]
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
    axes.bar(numbers, up, width=_width(rounds), color=OCHRE, linewidth=0, label="up, from clients")
    below = [-count for count in down]
    axes.bar(numbers, below, width=_width(rounds), color=BLUE, linewidth=0, label="down, to clients")
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
        color=ROSE,
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
    axes.plot(x, y, color=GREEN if key == "accuracy" else ROSE, linewidth=2.2, solid_capstyle="round")
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
