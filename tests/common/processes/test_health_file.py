import json

import pytest

from fl_common.errors import StoreError
from fl_common.processes import health_file
from fl_common.processes.health_file import HealthFile, Now


class Clock:
    now, set, boot = 1000.0, 0.0, "a boot"  # `set`: by how much the wall clock was

    def __call__(self):
        return Now(self.now + self.set, self.now, self.boot)


def test_a_pulse_says_the_state_when_it_was_written_and_when_the_other_side_was_last_heard(tmp_path):
    clock = Clock()
    file = HealthFile(tmp_path, address="localhost:9092", authority="ca.crt", clock=clock)
    assert file.beat("joined", "node 7", heard=True) == ""
    clock.now = 1010.0
    assert file.beat("connecting", "refused") == ""
    found = health_file.read(tmp_path)
    assert (found.state, found.detail, found.written, found.heard) == ("connecting", "refused", 1010.0, 1000.0)
    assert (found.address, found.authority) == ("localhost:9092", "ca.crt")
    clock.now = 1013.0
    assert (found.age(clock()), found.silence(clock())) == (3.0, 13.0)
    assert [path.name for path in tmp_path.iterdir()] == [health_file.FILE]


@pytest.mark.parametrize("jump", [3 * 3600.0, -3600.0])
def test_a_clock_that_is_set_makes_a_pulse_neither_old_nor_new(tmp_path, jump):
    clock = Clock()
    HealthFile(tmp_path, clock=clock).beat("joined", heard=True)
    clock.now, clock.set = 1020.0, jump
    found = health_file.read(tmp_path)
    assert (found.age(clock()), found.silence(clock())) == (20.0, 20.0)
    clock.boot = "another boot"
    assert found.age(clock()) == max(0.0, 20.0 + jump)


def test_one_that_never_heard_was_silent_for_ever(tmp_path):
    HealthFile(tmp_path).beat("connecting")
    found = health_file.read(tmp_path)
    assert found.silence(Now.here()) == float("inf")
    assert found.age(Now.here()) < 60


def test_a_pulse_that_cannot_be_written_is_told_and_does_not_raise(tmp_path):
    assert "cannot be written: No such file or directory" in HealthFile(tmp_path / "missing").beat("up")


@pytest.mark.parametrize("content", ["", "[]", "{}", json.dumps({"state": "up", "surprise": 1})])
def test_what_is_no_pulse_is_refused_in_words(tmp_path, content):
    (tmp_path / health_file.FILE).write_text(content)
    with pytest.raises(StoreError, match="not the pulse of a process"):
        health_file.read(tmp_path)


def test_a_missing_pulse_is_said_to_be_missing(tmp_path):
    with pytest.raises(StoreError, match="has not started"):
        health_file.read(tmp_path)
