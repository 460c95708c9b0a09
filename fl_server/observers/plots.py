"""The picture of a run: every metric of the model a round, then seconds and bytes; below, a simulated fleet's time."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fl_common.errors import StoreError
from fl_server.observers import panels
from fl_server.store.disk.whole_writes import plainly
from fl_server.store.log.events_log import Event
from fl_server.store.log.events_log import rounds as rounds_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEAD, ROW, COSTS, FLEET_HEIGHT = 1.15, 3.1, 2.5, 3.6  # inches: of the heading, a row of metrics, seconds and bytes
MOST_METRICS = 6
FORMATS = (".png", ".svg", ".pdf")
INK, GREY = "#22262b", "#5a606a"
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": "#c4c8ce",
    "axes.labelcolor": GREY,
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
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def draw(events: Sequence[Event], path: Path, *, title: str = "") -> None:
    """Draw a run's events into `path`, in the format of its name (FORMATS).

    Raises StoreError where there is no round, or the disk refuses.
    """
    rounds = rounds_in(events)
    if not rounds:
        raise StoreError("there is nothing to plot: no round of this run was completed.")
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        fleet = all((event.get("fleet") or {}).get("clock") for event in rounds)
        height = HEAD + ROW * _rows(names_of(rounds)) + COSTS
        figure = Figure(figsize=(12, height + FLEET_HEIGHT * fleet), dpi=150, facecolor="white")
        FigureCanvasAgg(figure)
        if fleet:
            upper, lower = cast(Any, figure.subfigures(2, 1, height_ratios=(height, FLEET_HEIGHT)))
            _compose(upper, rounds, events, title)
            _compose_fleet(lower, rounds)
        else:
            _compose(figure, rounds, events, title)
        save(figure, path)


def save(figure: "Figure", path: Path) -> None:
    """Write a figure into `path` in one step, in the format of its name. Raises StoreError where the disk refuses."""
    temporary = path.with_name(f".{path.name}")
    with plainly(f"write the plot {path}"):
        try:
            temporary.unlink(missing_ok=True)  # it might be a link to anything
            figure.savefig(temporary, format=path.suffix.removeprefix(".") or "png")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _compose(figure: "Figure", rounds: list[Event], events: Sequence[Event], title: str) -> None:
    names = names_of(rounds)
    colours = panels.colours(names)
    rows = _rows(names)
    height = HEAD + ROW * rows + COSTS
    grid = figure.add_gridspec(
        rows + 1, 2, height_ratios=(*[ROW] * rows, COSTS), left=0.065, right=0.965, top=1 - HEAD / height,
        bottom=0.55 / height, hspace=0.42, wspace=0.16,
    )  # fmt: skip
    for place, name in enumerate(names):
        alone = place == len(names) - 1 and place % 2 == 0
        axes = figure.add_subplot(grid[place // 2, :] if alone else grid[place // 2, place % 2])
        panels.measure(axes, rounds, name, colours[name])
        rounds_axis(axes, rounds[0]["round"], rounds[-1]["round"])
    costs = grid[rows, :].subgridspec(1, 2, width_ratios=(2, 1), wspace=0.2)
    for draw_panel, column in ((panels.seconds, 0), (panels.traffic, 1)):
        axes = figure.add_subplot(costs[0, column])
        draw_panel(axes, rounds)
        axes.set_xlabel("round")
        rounds_axis(axes, rounds[0]["round"], rounds[-1]["round"])
    _heading(figure, rounds, events, title, height)


def names_of(rounds: Sequence[Event]) -> list[str]:
    """Return the metrics that are drawn: the loss, the accuracy where there is one, then the others."""
    return _metrics(rounds)[:MOST_METRICS]


def _metrics(rounds: Sequence[Event]) -> list[str]:
    names = [key for key in ("loss", "accuracy") if any(event.get(key) is not None for event in rounds)]
    others = dict.fromkeys(name for event in rounds for name in event.get("metrics") or {})
    return [*names, *(name for name in others if name not in names)] or ["loss"]


def _rows(names: Sequence[str]) -> int:
    return -(-len(names) // 2)


def _compose_fleet(figure: "Figure", rounds: list[Event]) -> None:
    seconds, measure = figure.subplots(1, 2)
    panels.fleet_time(seconds, rounds)
    seconds.set_xlabel("round")
    rounds_axis(seconds, rounds[0]["round"], rounds[-1]["round"])
    panels.over_fleet_time(measure, rounds)
    figure.subplots_adjust(left=0.065, right=0.965, top=0.84, bottom=0.165, wspace=0.16)


def _heading(figure: "Figure", rounds: list[Event], events: Sequence[Event], title: str, height: float) -> None:
    started = next((event for event in reversed(events) if event["event"] == "started"), {})
    name = title or " · ".join(str(started[key]) for key in ("task", "strategy") if started.get(key)) or "Run"
    top = 1 - 0.42 / height
    figure.text(0.065, top, name, fontsize=17, fontweight="bold", va="center")
    cohorts = {int(event["cohort"]) for event in rounds if event.get("cohort")}
    facts = [f"{len(rounds)} round" + ("s" if len(rounds) != 1 else "")]
    facts += [f"{min(cohorts)} clients a round"] if len(cohorts) == 1 else []
    facts += [f"{started['parameters']:,} parameters"] if started.get("parameters") else []
    left_out = len(_metrics(rounds)) - MOST_METRICS
    facts += [f"{left_out} more metrics in events.jsonl"] if left_out > 0 else []
    facts += [f"seed {started['seed']}"] if started.get("seed") is not None else []
    figure.text(0.965, top, "  ·  ".join(facts), fontsize=10, color=GREY, ha="right", va="center")


def rounds_axis(axes: "Axes", first: int, last: int) -> None:
    """Number the rounds below a panel."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(first - 0.6, last + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10, steps=[1, 2, 5, 10], min_n_ticks=1))
