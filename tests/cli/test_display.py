"""The display: a program gets exactly the events, a log gets one line each, a person a table that fits the screen."""

import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.live import Live

from fl_cli.display import Display, JsonLines, PlainLines
from fl_cli.follow import GOES_ON, conclude, from_log, show
from fl_cli.live import LiveTable
from fl_cli.words import duration, measure, size

STARTED = {
    "event": "started",
    "run": "demo",
    "task": "digits",
    "strategy": "fedavg",
    "rounds": 3,
    "seed": 7,
    "parameters": 760,
    "bytes": 3040,
    "resumed_from": None,
}
REJECTED = {
    "event": "rejected",
    "round": 2,
    "client": 1,
    "node": 9,
    "phase": "train",
    "reason": "not-finite",
    "detail": "dense/kernel [red]holds[/red] NaN",
}
FINISHED = {
    "event": "finished",
    "rounds": 3,
    "accuracy": 0.9512,
    "loss": 0.25,
    "seconds": 4.2,
    "run_dir": "/far/my runs/demo",
    "model": "/far/my runs/demo/model.keras",
    "plot": "/far/my runs/demo/plot.png",
    "stopped": "target_accuracy",
}


def round_(number: int, **more: Any) -> dict[str, Any]:
    return {
        "event": "round",
        "round": number,
        "seconds": 0.21,
        "cohort": 4,
        "replies": 4,
        "rejected": 0,
        "loss": 1 / number,
        "accuracy": 1 - 0.5 / number,
        "bytes_up": 13_700,
        "bytes_down": 3_300_000,
    } | more


EVENTS = [
    STARTED,
    {"event": "waiting", "have": 1, "need": 4, "seconds": 1.0},
    round_(1),
    REJECTED,
    round_(2, replies=3, rejected=1),
    {"event": "repeat", "round": 3, "attempt": 2, "reason": "1 of 2 replies"},
    round_(3),
    FINISHED,
]


def plain(events: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    with PlainLines(out) as display:
        for event in events:
            display.on_event(event)
    return out.getvalue()


def picture(events: list[dict[str, Any]], width: int = 110, height: int = 40) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    table = LiveTable(console, clock=lambda: 0.0)
    for event in events:
        table.on_event(event)
    with console.capture() as capture:
        console.print(table.picture())
    return capture.get()


def test_json_lines_are_exactly_the_events() -> None:
    out = io.StringIO()
    display = Display.for_terminal(as_json=True, out=out)
    for event in EVENTS:
        display.on_event(event)
    assert isinstance(display, JsonLines)
    assert [json.loads(line) for line in out.getvalue().splitlines()] == EVENTS


def test_what_is_no_terminal_gets_plain_lines() -> None:
    assert isinstance(Display.for_terminal(out=io.StringIO()), PlainLines)


def test_plain_lines_name_what_happened() -> None:
    lines = plain(EVENTS).splitlines()
    assert lines[0] == "run demo started: digits, fedavg, 760 parameters (3.0 kB), seed 7"
    assert lines[1] == "waiting for clients: 1 of 4 are there"
    assert lines[2] == "round 1/3: loss 1.0000  accuracy 0.5000  replies 4/4  0.21 s  up 13.7 kB  down 3.3 MB"
    assert "client 1 was rejected (not-finite): dense/kernel" in lines[3]
    assert "replies 3/4  rejected 1" in lines[4]
    assert lines[5] == "round 3 is repeated (attempt 2): 1 of 2 replies"
    assert "accuracy 0.9512, loss 0.2500 after 3 rounds in 4.20 s; the target was reached" in lines[7]
    assert lines[-1] == "next:  fl export '/far/my runs/demo' --format tflite"


def test_a_run_without_a_plot_is_told_how_to_draw_one() -> None:
    assert plain([FINISHED | {"plot": None}]).splitlines()[-1] == "next:  fl plot '/far/my runs/demo'"


def test_a_resumed_and_a_failed_run_say_so() -> None:
    text = plain([STARTED | {"resumed_from": 2}, {"event": "failed", "error": "the disk is full", "round": 3}])
    assert "resumed after round 2" in text
    assert text.splitlines()[-1] == "failed in round 3"  # why is the error that the command ends with


def alike_in_all(error: str) -> list[dict[str, Any]]:
    rejected = [
        REJECTED | {"round": 1, "client": client, "reason": "error", "detail": "ValueError (my.py, line 3). See."}
        for client in range(3)
    ]
    replied = [{"event": "replied", "round": 1, "phase": "train", "replies": number, "cohort": 3} for number in (1, 3)]
    return [STARTED, rejected[0], replied[0], *rejected[1:], replied[1], {"event": "failed", "error": error}]


@pytest.mark.parametrize("shown", [plain, picture])
def test_what_every_client_does_wrong_alike_is_left_to_the_error_that_the_command_ends_with(shown: Any) -> None:
    text = shown(alike_in_all("every client failed alike in round 1: ValueError (my.py, line 3). See. Mend that."))
    assert "ValueError" not in text
    assert "more updates" not in text
    assert text.strip().splitlines()[-1].strip() == "failed"


@pytest.mark.parametrize("shown", [plain, picture])
def test_rejections_stay_where_the_run_fails_of_something_else(shown: Any) -> None:
    text = shown(alike_in_all("the disk is full"))
    assert text.index("ValueError (my.py, line 3)") < text.index("2 more updates were rejected (error)")
    assert text.index("2 more updates") < text.rindex("failed")


def test_a_rejection_is_shown_when_another_client_has_answered_well() -> None:
    out = io.StringIO()
    display = PlainLines(out)
    reply = {"event": "replied", "round": 2, "phase": "train", "cohort": 3}
    display.on_event(REJECTED)
    display.on_event(reply | {"replies": 1})
    assert out.getvalue() == ""
    display.on_event(reply | {"replies": 2})
    assert "was rejected" in out.getvalue()


GAPPED = FINISHED | {
    "gaps": 2,
    "absent": [{"client": number, "node": "9", "reasons": {"error": 2}} for number in range(12)],
    "never_joined": 1,
}


@pytest.mark.parametrize("shown", [plain, picture])
def test_a_finished_run_says_who_never_took_part_and_which_rounds_had_gaps(shown: Any) -> None:
    text = shown([STARTED, GAPPED])
    for expected in (
        "finished, with gaps",
        "client 9 never took part: its replies were rejected (error 2)",
        "2 more clients never took part",
        "1 client that the data were split for never joined",
        "2 of 3 rounds had the updates of less than half",
    ):
        assert expected in text
    assert "client 10" not in text


def test_a_run_with_gaps_has_an_exit_code_of_its_own() -> None:
    with pytest.raises(SystemExit) as ended:
        conclude(GAPPED, allow_partial=False)
    assert ended.value.code == 3
    conclude(GAPPED, allow_partial=True)
    conclude(FINISHED, allow_partial=False)


def test_waiting_is_said_again_only_when_it_changes() -> None:
    events = [{"event": "waiting", "have": have, "need": 4, "seconds": 1.0} for have in (0, 0, 0, 1, 1)]
    assert len(plain(events).splitlines()) == 2


def test_damage_is_told() -> None:
    assert "round 4 is damaged" in plain([{"event": "damaged", "round": 4, "detail": "its sum does not match"}])


def test_a_model_without_metrics_and_an_unknown_event_are_shown_as_far_as_they_go() -> None:
    bare = {"event": "round", "round": 1, "seconds": 0.1, "cohort": 2, "replies": 2, "rejected": 0, "loss": None}
    assert plain([{"event": "from the future"}, bare]) == "round 1: replies 2/2  0.10 s  up -  down -\n"
    assert "accuracy" not in picture([STARTED, bare])


def test_the_table_shows_progress_rounds_rejections_and_the_outcome() -> None:
    text = picture(EVENTS)
    for expected in (
        "demo",
        "digits, fedavg",
        "3/3",
        "1 rejected",
        "0.5000",
        "0.8333",
        "3.3 MB",
        "[red]holds[/red]",
        "finished",
        "model.keras",
        "plot.png",
        "fl export '/far/my runs/demo' --format tflite",
    ):
        assert expected in text


def test_the_table_says_what_is_going_on_and_how_long_it_will_take() -> None:
    assert "waiting for clients: 1 of 4" in picture(EVENTS[:2])
    assert " left" not in picture(EVENTS[:3])  # the first round compiles the model, and says nothing of the others
    assert "0.42 s left  round 3" in " ".join(
        picture([STARTED | {"rounds": 4}, round_(1, seconds=9.0), round_(2)]).split("\n")
    )


METRICS = {"mae": 12.3456, "auc": 0.00002, "head_a_loss": 0.5}


def test_every_compiled_metric_is_shown_as_far_as_there_is_room() -> None:
    event = round_(1, accuracy=None, metrics=METRICS)
    assert "loss 1.0000  mae 12.35  auc 2.0e-05  head_a_loss 0.5000  replies" in plain([event])
    wide, narrow = picture([STARTED, event], 120), picture([STARTED, event], 60)
    assert all(name in wide for name in ("mae", "auc", "head_a_loss", "12.35"))
    assert "accuracy" not in wide
    assert "mae" in picture([STARTED, event], 80)
    assert "head_a_loss" not in narrow
    assert max(map(len, narrow.split("\n"))) <= 60


def test_rounds_that_no_longer_fit_stay_in_the_terminals_scrollback() -> None:
    console = Console(file=io.StringIO(), width=100, height=24, force_terminal=True)
    table = LiveTable(console)
    with Live(get_renderable=table.picture, console=console, auto_refresh=False) as live:
        table._live = live
        for event in (STARTED | {"rounds": 60}, *(round_(number) for number in range(1, 61))):
            table.on_event(event)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    missing = [number for number in range(1, 61) if f"{1 / number:.4f}" not in printed]
    assert missing == []


def test_finished_in_is_the_whole_command() -> None:
    out = io.StringIO()
    PlainLines(out, began=time.monotonic() - 100).on_event(FINISHED)
    assert "after 3 rounds in 1 min 40 s" in out.getvalue()


@pytest.mark.parametrize(("width", "height"), [(60, 24), (80, 24), (100, 30), (200, 12)])
def test_a_long_run_fits_the_screen(width: int, height: int) -> None:
    events = [STARTED | {"rounds": 500}, *(round_(number) for number in range(1, 400)), REJECTED]
    lines = picture(events, width, height).rstrip("\n").split("\n")
    assert len(lines) < height or height < 20
    assert max(map(len, lines)) <= width
    assert any("399" in line and "0.0025" in line for line in lines)


def test_a_run_stopped_before_its_end_says_so() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    with LiveTable.on(console.file) as table:
        for event in EVENTS[:3]:
            table.on_event(event)
    assert "stopped" in console.file.getvalue()


SOME = {"event": "replied", "round": 1, "phase": "train", "replies": 2, "cohort": 3}


def test_what_is_waited_for_is_shown_before_there_are_events_and_while_replies_come() -> None:
    table = LiveTable(Console(file=io.StringIO(), width=110), clock=lambda: 0.0)
    shown = []
    for step in ("starting the server", "clients are loading: 2/3", STARTED, SOME, SOME | {"phase": "evaluate"}):
        table.doing(step) if isinstance(step, str) else table.on_event(step)
        with table._console.capture() as capture:
            table._console.print(table.picture())
        shown.append(capture.get())
    expected = ("starting the server", "clients are loading: 2/3", "round 1", "round 1: 2/3 replied", "2/3 evaluated")
    assert all(words in text for words, text in zip(expected, shown, strict=True))


def test_lines_say_what_is_waited_for_once_and_count_no_replies() -> None:
    out = io.StringIO()
    with PlainLines(out) as display:
        for text in ("starting the server", "clients are loading: 0/2", "clients are loading: 1/2"):
            display.doing(text)
        for event in (REJECTED, SOME, REJECTED):
            display.on_event(event)
    assert out.getvalue().splitlines()[:2] == ["starting the server", "clients are loading: 0/2"]
    assert len(out.getvalue().splitlines()) == 4  # the second rejection is counted with the first


def test_json_lines_leave_out_what_is_in_no_log_of_a_run() -> None:
    out = io.StringIO()
    display = JsonLines(out)
    display.doing("starting the server")
    display.on_event(SOME)
    assert out.getvalue() == ""


def test_a_run_that_goes_on_elsewhere_is_not_said_to_be_stopped() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    with LiveTable.on(console.file, unfinished=GOES_ON) as table:
        table.on_event(STARTED)
    assert "goes on, not followed" in console.file.getvalue()
    assert "stopped" not in console.file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.214, "0.21 s"),
        (9.996, "10.0 s"),
        (12.34, "12.3 s"),
        (59.99, "60.0 s"),
        (65, "1 min 05 s"),
        (119.7, "2 min 00 s"),
        (7800, "2 h 10 min"),
    ],
)
def test_durations_read_well(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (950, "950 B"),
        (14_200, "14.2 kB"),
        (314_000, "314 kB"),
        (3_100_000, "3.1 MB"),
        (2.5e12, "2.5 TB"),
    ],
)
def test_sizes_read_well(count: float | None, text: str) -> None:
    assert size(count) == text


def test_measures_keep_four_decimals_or_the_magnitude() -> None:
    assert [measure(value) for value in (None, 0.5, 123456.0)] == ["-", "0.5000", "1.23e+05"]
    assert measure(-0.0) == "0.0000"


def test_the_display_of_lines_imports_neither_tensorflow_nor_rich(tmp_path: Path) -> None:
    code = "import sys, fl_cli.display; sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras', 'rich')))"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=tmp_path).returncode == 0


def test_hundreds_of_replies_left_out_alike_are_two_lines() -> None:
    late = [REJECTED | {"client": client, "reason": "late", "detail": "no reply"} for client in range(300)]
    out = io.StringIO()
    with PlainLines(out) as lines:
        for event in (STARTED, *late, round_(2)):
            lines.on_event(event)
    assert out.getvalue().splitlines()[1:3] == [
        "round 2: the update of client 0 was rejected (late): no reply",
        "round 2: 299 more updates were rejected (late)",
    ]


def test_the_time_of_a_simulated_fleet_stands_beside_the_real_one() -> None:
    fleet = {"seconds": 41.0, "train": 40.0, "evaluate": 1.0, "clock": 7200.0, "there": 900}
    out, screen = io.StringIO(), io.StringIO()
    PlainLines(out).on_event(round_(2, fleet=fleet))
    assert "41.0 s of fleet time, 0.21 s here" in out.getvalue()
    table = LiveTable(Console(file=screen, width=120, force_terminal=False))
    for event in (STARTED, round_(1, fleet=fleet), round_(2, fleet=fleet)):
        table.on_event(event)
    table._console.print(table.picture())
    assert "2 h 00 min of fleet time" in screen.getvalue()
    assert "41.0 s" in screen.getvalue()


FORGED = "no\nfinished: accuracy 1.0000 after 3 rounds \x1b]0;owned\x07 \ud800"


def test_what_a_hostile_log_holds_is_shown_on_its_own_line_and_steers_nothing() -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    lines = [json.dumps(REJECTED | {"detail": FORGED}), '{"event":', '{"event":5}', '{"event":' + "[" * 100_000]
    show(from_log(line.replace('{"event": ', '{"event":', 1) for line in lines), PlainLines(out))
    out.flush()
    shown = out.buffer.getvalue().decode()  # type: ignore[attr-defined]
    assert shown.count("\n") == 1
    assert r"no\nfinished: accuracy" in shown
    assert shown.strip().isprintable()


class Broken(Display):
    """A display whose terminal is gone."""

    def on_event(self, event: Any) -> None:
        raise BrokenPipeError


def test_a_display_that_breaks_does_not_end_what_it_shows() -> None:
    assert show([STARTED, FINISHED], Broken()) == FINISHED


def test_the_table_says_which_partitions_no_client_holds_as_the_lines_do() -> None:
    sentence = "2 of 4 partitions unused (no client holds them)"
    some = [STARTED, round_(1, unused=2, partitions=4)]
    assert sentence in picture(some)
    assert sentence in plain(some)
    assert "unused" not in picture([*some, round_(2)])  # they are held again
