"""The picture of a run in one PNG: loss, accuracy, seconds and bytes of each round; below, a simulated fleet's time."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fl_common.errors import StoreError
from fl_server.disk import plainly
from fl_server.events import Event
from fl_server.events import rounds as rounds_in
from fl_server.observers import panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEIGHT, FLEET_HEIGHT = 7.6, 3.6  # inches
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
    """Draw a run's events into `path`, a PNG. Raises StoreError where there is no round, or the disk refuses."""
    rounds = rounds_in(events)
    if not rounds:
        raise StoreError("there is nothing to plot: no round of this run was completed.")
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        fleet = all((event.get("fleet") or {}).get("clock") for event in rounds)
        figure = Figure(figsize=(12, HEIGHT + FLEET_HEIGHT * fleet), dpi=150, facecolor="white")
        FigureCanvasAgg(figure)
        if fleet:
            upper, lower = cast(Any, figure.subfigures(2, 1, height_ratios=(HEIGHT, FLEET_HEIGHT)))
            _compose(upper, rounds, events, title)
            _compose_fleet(lower, rounds)
        else:
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
    panels.measure(loss, rounds, "loss", panels.ROSE)
    panels.measure(accuracy, rounds, "accuracy", panels.GREEN)
    panels.seconds(seconds, rounds)
    panels.traffic(traffic, rounds)
    for axes in (seconds, traffic):
        axes.set_xlabel("round")
    _rounds_axis(loss, rounds)
    _heading(figure, rounds, events, title)
    figure.subplots_adjust(left=0.065, right=0.965, top=0.845, bottom=0.075, hspace=0.3, wspace=0.16)


def _compose_fleet(figure: "Figure", rounds: list[Event]) -> None:
    seconds, measure = figure.subplots(1, 2)
    panels.fleet_time(seconds, rounds)
    seconds.set_xlabel("round")
    _rounds_axis(seconds, rounds)
    panels.over_fleet_time(measure, rounds)
    figure.subplots_adjust(left=0.065, right=0.965, top=0.84, bottom=0.165, wspace=0.16)


def _heading(figure: "Figure", rounds: list[Event], events: Sequence[Event], title: str) -> None:
    started = next((event for event in reversed(events) if event["event"] == "started"), {})
    name = title or " · ".join(str(started[key]) for key in ("task", "strategy") if started.get(key)) or "Run"
    figure.text(0.065, 0.945, name, fontsize=17, fontweight="bold", va="center")
    cohorts = {int(event["cohort"]) for event in rounds if event.get("cohort")}
    facts = [f"{len(rounds)} round" + ("s" if len(rounds) != 1 else "")]
    facts += [f"{min(cohorts)} clients a round"] if len(cohorts) == 1 else []
    facts += [f"{started['parameters']:,} parameters"] if started.get("parameters") else []
    facts += [f"seed {started['seed']}"] if started.get("seed") is not None else []
    figure.text(0.965, 0.945, "  ·  ".join(facts), fontsize=10, color=GREY, ha="right", va="center")


def _rounds_axis(axes: "Axes", rounds: list[Event]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(rounds[0]["round"] - 0.6, rounds[-1]["round"] + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10, steps=[1, 2, 5, 10], min_n_ticks=1))
