"""A client that was killed for memory is named by the next one: in its log, by `fl clients`, in the run's events."""

import json
import subprocess
import sys

import pytest

from fl_client.sudden_end import FILE, SuddenEnd
from fl_common.processes.memory_limit import Kills

LIMIT = 2 << 30


def killed(directory, *memory):
    """A client that was killed, and had used so much."""
    (directory / FILE).write_text(json.dumps(Kills(*memory).__dict__))


def begun(directory, *memory):
    end = SuddenEnd(directory, lambda: Kills(*memory))
    try:
        return end.begin()
    finally:
        end.end()


@pytest.mark.parametrize(
    ("last", "now", "why"),
    [
        ((0, LIMIT, LIMIT - 5), (1, LIMIT, LIMIT), "out of memory: limit 2048 MiB, peak 2048 MiB"),  # in one cgroup
        ((0, LIMIT, LIMIT // 20 * 19), (0, LIMIT, 9), "most likely out of memory: limit 2048 MiB, peak 1946 MiB"),
        ((0, LIMIT, LIMIT // 2), (0, LIMIT, 9), ""),
        ((0, None, LIMIT), (0, None, 9), ""),
    ],
)
def test_the_next_client_says_for_what_memory_the_last_one_was_killed(tmp_path, caplog, last, now, why):
    killed(tmp_path, *last)
    assert begun(tmp_path, *now) == why
    assert "the client before this one was killed" in caplog.text
    assert begun(tmp_path, *now) == ""  # that one was not killed
    assert not list(tmp_path.iterdir())


def test_a_first_client_and_a_note_that_is_damaged_say_nothing(tmp_path, caplog):
    assert begun(tmp_path, 0, LIMIT, 5) == ""
    wrong = [json.dumps({"count": 0, "limit": 1, "peak": 1} | {name: "x"}) for name in ("count", "limit", "peak")]
    for text in ("{", "[1]", '{"a": 1}', '"x"', *wrong):
        (tmp_path / FILE).write_text(text)
        assert begun(tmp_path, 0, LIMIT, 5) == ""
    assert not caplog.messages


def test_a_process_that_was_killed_leaves_what_it_used(tmp_path):
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom fl_client import sudden_end\n"
        "from fl_common.processes.memory_limit import Kills\n"
        f"used = [5]\nend = sudden_end.SuddenEnd(Path({str(tmp_path)!r}), lambda: Kills(0, 100, used[0]))\n"
        "end.begin()\nused[0] = 99\nend.note()\nprint('noted', flush=True)\ntime.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"noted\n"
    process.kill()
    process.communicate()
    assert json.loads((tmp_path / FILE).read_text())["peak"] == 99
    assert begun(tmp_path, 0, 100, 5).startswith("most likely out of memory")


def test_no_note_is_written_after_the_end(tmp_path):
    end = SuddenEnd(tmp_path, lambda: Kills(0, None, 5))
    end.begin()
    end.end()
    end.note()  # as the thread that notes may be about to
    assert not list(tmp_path.iterdir())


def test_an_end_that_cannot_be_noted_is_said_and_stops_nothing(tmp_path, caplog):
    end = SuddenEnd(tmp_path, lambda: Kills(0, None, 5))
    (tmp_path / FILE).mkdir()
    end.end()
    assert "the next client will say that this one was killed" in caplog.text


def test_the_peak_is_noted_when_it_has_grown(tmp_path):
    used = [100]
    end = SuddenEnd(tmp_path, lambda: Kills(0, None, used[0]))
    end.note()
    first = (tmp_path / FILE).stat().st_ino
    for used[0], again in ((101, False), (110, True)):
        end.note()
        assert ((tmp_path / FILE).stat().st_ino != first) is again
