"""What a server says of itself: a pulse for probes, and each new event once."""

import json

from fl_common.processes import health_file
from fl_common.processes.health_file import HealthFile
from fl_common.settings.schema import Settings
from fl_server.observers.health import ServerHealth
from fl_server.store.runs import Run


def test_a_servers_pulse_and_the_new_events_of_its_runs_are_told_once(tmp_path):
    earlier = Run.create(tmp_path / "earlier", Settings())
    earlier.append({"event": "started"})
    time, told = [0.0], []
    vitals = ServerHealth(
        tmp_path,
        HealthFile(tmp_path),
        tell=lambda run, event: told.append((run, event["event"])),
        clock=lambda: time[0],
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
    assert (health_file.read(tmp_path).state, health_file.read(tmp_path).detail) == ("up", "well")


def test_a_pulse_that_cannot_be_written_is_said_once_a_minute(tmp_path, caplog):
    place, time = tmp_path / "home", [0.0]
    vitals = ServerHealth(tmp_path, HealthFile(place), tell=lambda run, event: None, clock=lambda: time[0])

    def tick():
        time[0] += 25.0
        vitals.tick("up", "")
        return len(caplog.records)

    assert [tick() for _ in range(5)] == [1, 1, 1, 2, 2]
    assert "health probes will fail" in caplog.text
    place.mkdir()
    assert tick() == 2
    assert json.loads((place / health_file.FILE).read_text())["state"] == "up"
    (place / health_file.FILE).unlink()
    place.rmdir()
    assert tick() == 3


def test_an_event_that_cannot_be_told_ends_no_server_and_keeps_no_other_from_being_told(tmp_path, caplog):
    time, told = [0.0], []

    def tell(run, event):
        if event["event"] == "rejected":
            raise UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")
        told.append(event["event"])

    vitals = ServerHealth(tmp_path, HealthFile(tmp_path), tell=tell, clock=lambda: time[0])
    run = Run.create(tmp_path / "run", Settings())
    for kind in ("rejected", "rejected", "round"):
        run.append({"event": kind, "round": 1})
    time[0] += 10.0
    vitals.tick("up", "well")
    assert told == ["round"]
    assert caplog.text.count("events of run run are not shown: UnicodeEncodeError") == 1


def test_a_servers_pulse_says_what_its_runs_wait_for_until_they_do_not(tmp_path):
    time = [0.0]
    vitals = ServerHealth(tmp_path, HealthFile(tmp_path), tell=lambda run, event: None, clock=lambda: time[0])
    run = Run.create(tmp_path / "first", Settings())

    def detail(**event):
        run.append(event)
        time[0] += 10.0
        vitals.tick("up", "well")
        return health_file.read(tmp_path).detail

    assert detail(event="started") == "well"
    assert detail(event="waiting", have=0, need=2) == "well; run first: waiting for 2 clients; 0 are there"
    assert detail(event="differs") == "well; run first: waiting for 2 clients; 0 are there"
    assert detail(event="waiting", have=1, need=2, where="site=rome").endswith("2 clients with site=rome; 1 is there")
    assert detail(event="waiting", have=2, need=2) == "well"
    assert detail(event="waiting", have="x", need=2) == "well"
