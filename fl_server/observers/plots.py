"""The picture of a run, four panels in one PNG: loss, accuracy, seconds and bytes of each round."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl_common.errors import StoreError
from fl_server.disk import plainly
from fl_server.events import Event

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GREEN, BLUE, ROSE, OCHRE, GREY, INK = "#2f7d4f", "#3b6ea8", "#c2476a", "#d9983a", "#8a8f98", "#22262b"
PHASES = {"train": GREEN, "evaluate": BLUE, "aggregate": OCHRE, "commit": ROSE, "other": "#d5d8dc"}
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": "#c4c8ce",
    "axes.labelcolor": "#5a606a",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlepad": 12,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#e9ebee",
    "xtick.color": "#5a606a",
    "ytick.color": "#5a606a",
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def rounds_of(events: Sequence[Event]) -> list[Event]:
    """Return the last "round" event of each round, in order."""
    last = {event["round"]: event for event in events if event["event"] == "round"}
    return [last[number] for number in sorted(last)]


def draw(events: Sequence[Event], path: Path, *, title: str = "") -> None:
    """Draw a run's events into `path`, a PNG. Raises StoreError where there is no round, or the disk refuses."""
    rounds = rounds_of(events)
    if not rounds:
        raise StoreError("there is nothing to plot: no round of this run was completed.")
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(12, 7.6), dpi=150, facecolor="white")
        FigureCanvasAgg(figure)
        _compose(figure, rounds, events, title)
        temporary = path.with_name(f".{path.name}")
        with plainly(f"write the plot {path}"):
            try:
                figure.savefig(temporary, format="png")
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)


def _compose(figure: "Figure", rounds: list[Event], events: Sequence[Event], title: str) -> None:
    ((loss, accuracy), (seconds, traffic)) = figure.subplots(2, 2, sharex=True)
    _measure(loss, rounds, "loss", ROSE)
    _measure(accuracy, rounds, "accuracy", GREEN)
    _seconds(seconds, rounds)
    _bytes(traffic, rounds)
    for axes in (seconds, traffic):
        axes.set_xlabel("round")
    _rounds_axis(loss, rounds)
    _heading(figure, rounds, events, title)
    figure.subplots_adjust(left=0.065, right=0.965, top=0.845, bottom=0.075, hspace=0.3, wspace=0.16)


def _heading(figure: "Figure", rounds: list[Event], events: Sequence[Event], title: str) -> None:
    started = next((event for event in reversed(events) if event["event"] == "started"), {})
    name = title or " · ".join(str(started[key]) for key in ("task", "strategy") if started.get(key)) or "Run"
    figure.text(0.065, 0.945, name, fontsize=17, fontweight="bold", va="center")
    cohorts = {int(event["cohort"]) for event in rounds if event.get("cohort")}
    facts = [f"{len(rounds)} round" + ("s" if len(rounds) != 1 else "")]
    facts += [f"{min(cohorts)} clients a round"] if len(cohorts) == 1 else []
    facts += [f"{started['parameters']:,} parameters"] if started.get("parameters") else []
    facts += [f"seed {started['seed']}"] if started.get("seed") is not None else []
    figure.text(0.965, 0.945, "  ·  ".join(facts), fontsize=10, color="#5a606a", ha="right", va="center")


def _measure(axes: "Axes", rounds: list[Event], key: str, colour: str) -> None:
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


def _seconds(axes: "Axes", rounds: list[Event]) -> None:
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
    heights["other"] = [max(0.0, total - part) for total, part in zip(totals, known, strict=True)]
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


def _bytes(axes: "Axes", rounds: list[Event]) -> None:
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


def _rounds_axis(axes: "Axes", rounds: list[Event]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(rounds[0]["round"] - 0.6, rounds[-1]["round"] + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10, steps=[1, 2, 5, 10], min_n_ticks=1))


def _empty(axes: "Axes", text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY)
    axes.set_yticks([])
