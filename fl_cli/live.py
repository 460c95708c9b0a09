"""The live table of a run on a terminal: what is learned, progress, the last rounds, and what was rejected."""

import time
from collections import deque
from collections.abc import Callable
from statistics import median_low
from typing import Self, TextIO

from rich import box
from rich.bar import Bar
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from fl_cli import words
from fl_cli.display import REPLIED, Display
from fl_cli.words import Event, duration, measure, size

AROUND, OUTCOME = 10, 6  # lines of the picture that are not rounds, and those of the outcome
NOTES = 4
NOTED = (
    *("rejected", "dropped", "aside", "back", "differs", "repeat", "damaged", "engine", "hostile", "restarted"),
    "warning",
    "paused",
)
WIDE, ROOMY = 92, 72  # columns for the bars of accuracy, and for the traffic
TAKEN, TRAFFIC = 60, 20  # columns of the others: round, replies, loss, accuracy or none, time, and the traffic's
SAVING = "saving the model and drawing the plot"
RECENT = 10  # rounds that the estimate of the time left rests on


class LiveTable(Display):
    """Redraws itself a few times a second; the last picture stays on the screen, with the outcome under it."""

    def __init__(
        self,
        console: Console,
        *,
        clock: Callable[[], float] = time.monotonic,
        unfinished: str = "stopped",
        began: float | None = None,
    ) -> None:
        self._command_began = began
        self._unfinished = unfinished
        self._console = console
        self._clock = clock
        self._began = clock()
        self._started: Event = {}
        self._rounds: dict[int, Event] = {}
        self._first = 0  # round that was shown here, which compiles the model
        self._best: Event | None = None
        self._notes: deque[str] = deque(maxlen=NOTES)
        self._rejected: Event = {}
        self._more = 0
        self._doing = "starting"
        self._end: Event | None = None
        self._spinner = Spinner("dots", style="cyan")
        self._live: Live | None = None

    @classmethod
    def on(cls, out: TextIO, *, unfinished: str = "stopped", began: float | None = None) -> Self:
        """Begin to draw on a terminal."""
        table = cls(Console(file=out, highlight=False), unfinished=unfinished, began=began)
        table._live = Live(get_renderable=table.picture, console=table._console, refresh_per_second=8)
        table._live.start()
        return table

    def close(self) -> None:
        """Draw for the last time and give the terminal back."""
        if self._live is not None:
            live, self._live = self._live, None
            self._doing = self._unfinished if self._end is None else ""
            live.stop()

    def doing(self, text: str) -> None:
        """Take in what is waited for."""
        self._doing = text

    def on_event(self, event: Event) -> None:
        """Take an event in."""
        take = {
            "started": self._take_started,
            "round": self._take_round,
            "finished": self._take_end,
            "failed": self._take_end,
        }.get(event["event"])
        if take is not None:
            take(event)
        elif event["event"] == "waiting":
            self._doing = words.waiting(event)
        elif event["event"] == REPLIED:
            self._doing = words.replied(event)
        elif event.get("reason") == "surplus":
            return  # as many a round as were asked too many
        elif event["event"] in NOTED:
            self._take_note(event)

    def picture(self) -> RenderableType:
        """Return the whole picture as it is now."""
        parts: list[RenderableType] = [Text(), self._title(), Text(), self._progress()]
        if self._rounds:
            parts.append(self._table())
        notes = [*self._unused(), *self._notes]
        parts += [Text(f"! {note}", style="yellow", overflow="ellipsis", no_wrap=True) for note in notes]
        if self._end is not None:
            parts += [*([Text()] if notes or not self._rounds else []), self._outcome(self._end), Text()]
        return Padding(Group(*parts), (0, 1))

    def _take_started(self, event: Event) -> None:
        self._started = event
        self._began = self._clock()
        resumed = event.get("resumed_from")
        self._doing = f"round {(resumed or 0) + 1}"
        if resumed is not None:
            self._notes.append(f"resumed after round {resumed}")

    def _take_round(self, event: Event) -> None:
        self._first = self._first or event["round"]
        self._rounds[event["round"]] = event
        self._scroll()
        losses = [entry for entry in self._rounds.values() if entry.get("loss") is not None]
        self._best = min(losses, key=lambda entry: float(entry["loss"]), default=None)
        following = event["round"] + 1
        self._doing = f"round {following}" if following <= self._total() else SAVING

    def _scroll(self) -> None:
        """Print above the table what no longer fits into it, so that no round is lost to who scrolls back."""
        while self._live is not None and len(self._rounds) > self._height():
            number, entry = next(iter(self._rounds.items()))
            del self._rounds[number]
            self._live.console.print(Text(words.DESCRIBE["round"](entry), style="dim"), no_wrap=True, crop=False)

    def _take_note(self, event: Event) -> None:
        if words.alike(event, self._rejected):
            self._more += 1
            if self._more > 1:
                self._notes.pop()
            self._notes.append(words.more_left_out(event, self._more))
            return
        self._rejected, self._more = event, 0
        self._notes.append(words.DESCRIBE[event["event"]](event))

    def _take_end(self, event: Event) -> None:
        self._end = event
        if self._rejected and words.is_repeated(self._rejected, event):
            told = (words.DESCRIBE["rejected"](self._rejected), words.more_left_out(self._rejected, self._more))
            self._notes = deque((note for note in self._notes if note not in told), maxlen=NOTES)
        self._doing = ""
        self._scroll()

    def _total(self) -> int:
        return int(self._started.get("rounds") or 0)

    def _last(self) -> int:
        return max(self._rounds, default=int(self._started.get("resumed_from") or 0))

    def _title(self) -> RenderableType:
        name = escape(str(self._started.get("run") or "Parterre"))
        heading = escape(words.heading(self._started)) if self._started else ""
        return Text.from_markup(f"[bold green]{name}[/]  [dim]{heading}[/]", overflow="ellipsis")

    def _progress(self) -> RenderableType:
        total, last = self._total(), self._last()
        row = Table.grid(padding=(0, 2), expand=False)
        failed = self._end is not None and self._end["event"] == "failed"
        width = max(10, min(40, self._console.width - 44))
        cells: list[RenderableType] = []
        if total:
            style = "red" if failed else "green"
            cells += [ProgressBar(total, last, width=width, complete_style=style, finished_style=style)]
            cells += [Text(f"{last}/{total}", style="bold")]
        if self._end is None:
            cells += [Text(f"{duration(self._clock() - self._began)}{self._left()}{self._fleet()}", style="cyan")]
            self._spinner.update(text=Text(self._doing, style="dim"))
            cells += [self._spinner if self._live is not None else Text(self._doing, style="dim")]
        row.add_row(*cells)
        return row

    def _left(self) -> str:
        after_first = [entry for number, entry in self._rounds.items() if number != self._first]
        recent = [float(entry["seconds"]) for entry in after_first[-RECENT:] if entry.get("seconds")]
        remaining = self._total() - self._last()
        return f", {duration(median_low(recent) * remaining)} left" if recent and remaining > 0 else ""

    def _fleet(self) -> str:
        """Return where the clock of a simulated fleet stands, if there is one."""
        fleet = self._rounds[self._last()].get("fleet") if self._rounds else None
        return f"; {duration(fleet['clock'])} of fleet time" if fleet and fleet["clock"] else ""

    def _table(self) -> RenderableType:
        wide = self._console.width >= WIDE
        names = self._names()
        has_accuracy = "accuracy" in names
        table = Table(box=box.SIMPLE_HEAD, header_style="dim", border_style="dim", pad_edge=False)
        for name in ("round", "replies", *names):
            table.add_column(Text(name), justify="right", no_wrap=True)
        if has_accuracy and wide:
            table.add_column("", width=16)
        times = ("fleet", "here") if self._has_fleet() else ("time",)
        for name in (*times, "up", "down") if self._console.width >= ROOMY else times:
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        for entry in list(self._rounds.values())[-self._height() :]:
            table.add_row(*self._cells(entry, names, wide), style="bold" if entry is self._best else "")
        return table

    def _names(self) -> list[str]:
        """Return the metrics that have a column: as many as the terminal has room for, the loss always."""
        found = list(dict.fromkeys(name for entry in self._rounds.values() for name in words.metrics(entry)))
        room = self._console.width - (TAKEN if self._console.width >= ROOMY else TAKEN - TRAFFIC)
        room -= 10 if self._has_fleet() else 0
        room -= 18 if "accuracy" in found and self._console.width >= WIDE else 0
        names = ["loss", *(["accuracy"] if "accuracy" in found else [])]
        for name in (each for each in found if each not in names):
            room -= max(len(name), 7) + 2
            if room < 0:
                break
            names.append(name)
        return names

    def _cells(self, entry: Event, names: list[str], wide: bool) -> list[RenderableType]:
        accuracy, found = entry.get("accuracy"), words.metrics(entry)
        has_accuracy = "accuracy" in names
        replies = Text(f"{entry.get('replies')}/{entry.get('cohort')}")
        out = [f"{entry[word]} {word}" for word in ("rejected", "left") if entry.get(word)]
        rejected = Text(", ".join(out), style="red" if entry.get("rejected") else "yellow")
        cells: list[RenderableType] = [Text(str(entry["round"])), replies]
        cells += [Text(measure(found.get(name)), style="green" if name == "accuracy" else "") for name in names]
        cells += [Bar(1, 0, accuracy or 0, width=16, color="green")] if has_accuracy and wide else []
        times = [entry["fleet"]["seconds"]] if self._has_fleet() else []
        cells += [Text(duration(seconds), style="cyan") for seconds in (*times, entry.get("seconds"))]
        return [*cells, *self._traffic(entry), rejected]

    def _unused(self) -> list[str]:
        """Return how much of a shared data set the last round went without; nothing where it had all."""
        last = self._rounds[self._last()] if self._rounds else {}
        return [words.unused(last)] if last.get("unused") else []

    def _has_fleet(self) -> bool:
        return all((entry.get("fleet") or {}).get("clock") for entry in self._rounds.values())

    def _height(self) -> int:
        around = AROUND + len(self._notes) + len(self._unused()) + (OUTCOME if self._end is not None else 0)
        return max(3, self._console.height - around)

    def _traffic(self, entry: Event) -> list[RenderableType]:
        keys = ("bytes_up", "bytes_down") if self._console.width >= ROOMY else ()
        return [Text(size(entry.get(key)), style="dim") for key in keys]

    def _outcome(self, event: Event) -> RenderableType:
        if event["event"] == "failed":
            return Text(words.short_failure(event), style="bold red")
        grid = Table.grid(padding=(0, 2))
        style = "bold yellow" if event.get("gaps") else "bold green"
        whole = self._clock() - self._command_began if self._command_began is not None else None
        grid.add_row(Text(words.finish(event), style=style), Text(words.result(event, whole), style="bold"))
        for line in words.shortfalls(event):
            grid.add_row(Text("!", style="yellow"), Text(line, style="yellow", overflow="fold"))
        for word, text in words.leavings(event):
            style = "bold cyan" if word == "next" else "default"
            grid.add_row(Text(word, style="dim"), Text(text, style=style, overflow="fold"))
        return grid
