"""What a server says of itself: a pulse for probes, and each new event once."""

import json

from fl_common import pulse
from fl_common.pulse import PulseFile
from fl_common.settings import Settings
from fl_server.runs import Run
from fl_server.vitals import Vitals


def test_a_servers_pulse_and_the_new_events_of_its_runs_are_told_once(tmp_path):
    earlier = Run.create(tmp_path / "earlier", Settings())
    earlier.append({"event": "started"})
    time, told = [0.0], []
    vitals = Vitals(
        tmp_path, PulseFile(tmp_path), tell=lambda run, event: told.append((run, event["event"])), clock=lambda: time[0]
    )
    run = Run.create(tmp_path / "new", Settings())
    for kind in ("started", "round"):
        run.append({"event": kind, "round": 1})
        time[0] += 1.0
        vitals.tick("up", "well")
    earlier.append({"event": "finished"})
    time[0] += 1.0
    vitals.tick("up", "well")
    assert told == [("new", "started"), ("new", "round"), ("earlier", "finished")]
    assert (pulse.read(tmp_path).state, pulse.read(tmp_path).detail) == ("up", "well")


def test_a_pulse_that_cannot_be_written_is_said_once_until_it_can(tmp_path, caplog):
    place, time = tmp_path / "home", [0.0]
    vitals = Vitals(tmp_path, PulseFile(place), tell=lambda run, event: None, clock=lambda: time[0])

    def tick():
        time[0] += 10.0
        vitals.tick("up", "")
        return len(caplog.records)

    assert [tick() for _ in range(3)] == [1, 1, 1]
    assert "health probes will fail" in caplog.text
    place.mkdir()
    assert tick() == 1
    assert json.loads((place / pulse.FILE).read_text())["state"] == "up"
    (place / pulse.FILE).unlink()
    place.rmdir()
    assert tick() == 2
