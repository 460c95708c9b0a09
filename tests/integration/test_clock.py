"""A server whose machine's clock is set while a run goes on: three hours forward, then back to an hour behind."""

import json
from pathlib import Path

import pytest

from tests.integration.conftest import Start, stop, until
from tests.support.fleet import Fleet

ROUNDS = 8
SET_CLOCK = """
import datetime, sqlite3, time

PLACE = "{place}"


def ahead():
    with open(PLACE) as file:
        return float(file.read() or 0)


real, true = datetime.datetime, time.time
time.time = lambda: true() + ahead()


class Kind(type):
    def __instancecheck__(cls, value):
        return isinstance(value, real)


class Set(real, metaclass=Kind):
    @classmethod
    def now(cls, tz=None):  # one of this kind again: code in Rust and C asks for that
        return super().now(tz) + datetime.timedelta(seconds=ahead())


sqlite3.register_adapter(Set, lambda value: value.isoformat(" "))
datetime.datetime = Set
"""


@pytest.mark.slow
def test_a_run_outlives_it_and_whoever_follows_the_run_sees_every_line_and_ends_well(
    start: Start, tmp_path: Path
) -> None:
    place, hooks = tmp_path / "ahead", tmp_path / "hooks"
    place.write_text("0")
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(SET_CLOCK.format(place=place))
    fleet = Fleet(lambda *command, **more: start(*command, **more, PYTHONPATH=str(hooks)), tmp_path)
    fleet.start = start  # the clients' and the follower's clocks are right
    for name in ("one", "two"):
        fleet.client(name)
    run = fleet.running(
        "--rounds", str(ROUNDS), "--set", f"out={fleet.store}/run", "--set", "local_epochs=20", "--set", "plot=false"
    )  # fmt: skip
    for after, ahead in ((2, 3 * 3600.0), (5, -3600.0)):
        until(lambda after=after: len(fleet.events("run", "round")) >= after, f"round {after}", run)
        place.write_text(str(ahead))
    assert run.wait(timeout=240) == 0, fleet.log("run")
    told = [json.loads(line) for line in fleet.log("run").splitlines() if line.startswith("{")]
    assert [each["round"] for each in told if each["event"] == "round"] == list(range(1, ROUNDS + 1))
    assert [(each["replies"], each["cohort"]) for each in told if each["event"] == "round"] == [(2, 2)] * ROUNDS
    assert [each["event"] for each in told if each["event"] in ("finished", "restarted", "failed")] == ["finished"]
    times = [each["time"][:10] for each in fleet.events("run", "round")]
    assert len(times) == ROUNDS
    late = fleet.client("three")  # signs by a clock that is right, at a server whose is an hour behind
    for name in ("one", "two", "three"):
        assert "refused" not in fleet.log(name)
    assert stop(late) == 0
    assert stop(fleet.server) == 0
    assert fleet.log("server").count("server is up") == 1
    assert "fell" not in fleet.log("server")
