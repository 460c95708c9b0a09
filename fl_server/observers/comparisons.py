"""The picture of several runs: a panel for each metric that all of them have, a colour for each run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl_server.observers import panels, plots
from fl_server.store.log.events_log import Event

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#1f4e79", "#d9983a", "#2f7d4f", "#c2476a", "#7a5ba6", "#2f8585", "#8f6526", "#5a606a")
LINES = ("-", "--", ":")  # the same colours once more
MOST_RUNS = len(COLOURS) * len(LINES)
WIDTH, MARGIN, LEGEND_ROW = 12.0, 0.065, 0.24  # inches, share of the width, inches
LEGEND_CHARACTERS = 130  # in a row of the legend
LONGEST_LABEL = 60


def draw(runs: Mapping[str, Sequence[Event]], names: Sequence[str], path: Path, *, title: str) -> None:
    """Draw the "round" events of runs, by their labels, into `path`, in the format of its name (plots.FORMATS).

    names: the metrics; those beyond the first six are not drawn. At most MOST_RUNS runs can be told apart.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = names[: plots.MOST_METRICS]
    columns = max(1, LEGEND_CHARACTERS // (6 + max(len(_label(name)) for name in runs)))
    head = 0.95 + LEGEND_ROW * -(-len(runs) // columns)
    rows = -(-len(shown) // 2)
    height = head + plots.ROW * rows + 0.3
    with mpl.rc_context(plots.STYLE):
        figure = Figure(figsize=(WIDTH, height), dpi=150, facecolor="white")
        FigureCanvasAgg(figure)
        _compose(figure, runs, shown, top=1 - (head + 0.3) / height, bottom=0.6 / height)
        figure.text(MARGIN, 1 - 0.4 / height, title, fontsize=17, fontweight="bold", va="center", parse_math=False)
        left_out = len(names) - len(shown)
        facts = [f"{len(runs)} runs", *([f"{left_out} more metrics in the table"] if left_out else [])]
        figure.text(0.965, 1 - 0.4 / height, "  ·  ".join(facts), color=plots.GREY, ha="right", va="center")
        _legend(figure, list(runs), columns, 1 - 0.6 / height)
        plots.save(figure, path)


def _compose(figure: "Figure", runs: Mapping[str, Sequence[Event]], names: Sequence[str], **edges: float) -> None:
    rows = -(-len(names) // 2)
    grid = figure.add_gridspec(rows, 2, left=MARGIN, right=0.965, hspace=0.42, wspace=0.16, **edges)
    numbers = [event["round"] for rounds in runs.values() for event in rounds]
    for place, name in enumerate(names):
        alone = place == len(names) - 1 and place % 2 == 0
        axes = figure.add_subplot(grid[place // 2, :] if alone else grid[place // 2, place % 2])
        axes.set_title(panels.short(name), parse_math=False)
        values: list[float] = []
        for number, rounds in enumerate(runs.values()):
            points = [(event["round"], value) for event in rounds if (value := panels.value(event, name)) is not None]
            x, y = zip(*points, strict=True)
            axes.plot(x, y, **_look(number), solid_capstyle="round")
            axes.plot(x[-1], y[-1], marker="o", color=_look(number)["color"], markersize=6, markeredgecolor="white")
            values += y
        panels.limit(axes, name, values, [])
        plots.rounds_axis(axes, min(numbers), max(numbers))
        if place >= len(names) - 2:
            axes.set_xlabel("round")


def _look(number: int) -> dict[str, Any]:
    line = LINES[number // len(COLOURS) % len(LINES)]
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": line, "linewidth": 2.2}


def _legend(figure: "Figure", labels: Sequence[str], columns: int, top: float) -> None:
    """Name the runs below the heading, off every curve. A label is shown as it is, also one with `$` or a first `_`."""
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], **_look(number)) for number in range(len(labels))]
    legend = figure.legend(
        lines, [str(number) for number in range(len(labels))], loc="upper left", bbox_to_anchor=(MARGIN, top),
        ncols=columns, columnspacing=1.6, handlelength=1.8, borderaxespad=0, borderpad=0,
    )  # fmt: skip
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_parse_math(False)
        text.set_text(_label(label))


def _label(name: str) -> str:
    half = LONGEST_LABEL // 2
    return name if len(name) <= LONGEST_LABEL else f"{name[: half - 1]}…{name[-half:]}"
