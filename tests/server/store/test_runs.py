"""The run store: what was committed is there after any end of the process, and one process writes at a time."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from fl_common.errors import SettingsError, StoreError
from fl_common.settings.schema import Settings
from fl_server.store import checkpoints
from fl_server.store.runs import Checkpoint, Run, listing


def made(tmp_path: Path, **settings: object) -> Run:
    return Run.create(tmp_path / "run", Settings.model_validate({"keep_best": ""} | settings))


def commit(run: Run, round_: int, loss: float = 0.5) -> None:
    run.commit(
        Checkpoint(round_, {"w": np.full(4, round_, np.float32)}), {"event": "round", "round": round_, "loss": loss}
    )


def damage(run: Run, round_: int) -> None:
    path = run.directory / "checkpoints" / f"{round_:04d}" / "arrays.npz"
    path.write_bytes(path.read_bytes()[:-9])


def latest_round(run: Run) -> int | None:
    checkpoint = run.latest()
    return checkpoint.round if checkpoint else None


def test_a_run_opens_with_the_settings_it_began_with(tmp_path: Path) -> None:
    settings = Settings(rounds=3, strategy="fedadam", tau=1e-4, strategy_args='{"name": "Zoë"}', plot=False)
    Run.create(tmp_path / "deep" / "run", settings)
    run = Run.open(tmp_path / "deep" / "run")
    assert run.settings == settings
    assert run.name == "run"


def test_the_environment_does_not_change_a_run_that_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, rounds=3)
    monkeypatch.setenv("FL_ROUNDS", "99")
    assert Run.open(tmp_path / "run").settings.rounds == 3


def test_a_directory_that_holds_a_run_is_not_begun_again(tmp_path: Path) -> None:
    made(tmp_path)
    with pytest.raises(StoreError, match=r"already holds a run.*--out.*fl resume"):
        made(tmp_path)


@pytest.mark.parametrize("end", ["failed", "stopped"])
def test_a_run_that_ended_without_a_committed_round_does_not_keep_its_directory(tmp_path: Path, end: str) -> None:
    for number in (1, 2):
        first = made(tmp_path, rounds=number)
        first.append({"event": "started"})
        first.append({"event": end})
    again = made(tmp_path, rounds=7)
    assert again.set_aside == tmp_path / "run" / "failed-2"
    assert again.events() == []
    assert Run.open(tmp_path / "run").settings.rounds == 7
    kept = Run.open(again.set_aside)
    assert (kept.settings.rounds, kept.outline().last["event"], kept.damage) == (2, end, "")
    assert Run.open(tmp_path / "run" / "failed-1").settings.rounds == 1
    assert [run.name for run in listing(tmp_path)] == ["run"]


def test_a_run_that_goes_on_or_has_a_round_keeps_its_directory(tmp_path: Path) -> None:
    made(tmp_path).append({"event": "started"})  # killed, or about to begin: nothing says that it is over
    with pytest.raises(StoreError, match="already holds a run"):
        made(tmp_path)
    other = made(tmp_path / "other")
    commit(other, 1)
    other.append({"event": "failed"})
    with pytest.raises(StoreError, match="already holds a run"):
        made(tmp_path / "other")


def test_a_path_through_a_file_is_refused_in_plain_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"--out"):
        Run.create(tmp_path / "file" / "run", Settings())
    with pytest.raises(StoreError, match=r"--out"):
        Run.create(tmp_path / "file", Settings())


def test_opening_what_is_no_run_says_where_to_look(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="fl runs"):
        Run.open(tmp_path / "nothing")


def test_damaged_settings_are_named(tmp_path: Path) -> None:
    run = made(tmp_path)
    (run.directory / "seal.json").unlink()
    (run.directory / "settings.toml").write_text("rounds = = 3")
    with pytest.raises(SettingsError, match=r"settings\.toml"):
        Run.open(run.directory)


def test_events_come_back_in_order_with_the_time(tmp_path: Path) -> None:
    run = made(tmp_path)
    run.append({"event": "started", "run": "run"})
    run.append(
        {"event": "round", "round": 1, "loss": np.float32(0.5), "spread": {"loss": np.ones(2)}, "model": Path("m")}
    )
    started, round_ = run.events()
    assert started["event"] == "started"
    assert started["time"].endswith("+00:00")
    assert (round_["loss"], round_["spread"], round_["model"]) == (0.5, {"loss": [1.0, 1.0]}, "m")


def test_a_loss_that_is_not_a_number_is_null_in_the_log(tmp_path: Path) -> None:
    run = made(tmp_path)
    run.append({"event": "round", "round": 1, "loss": float("nan"), "spread": [np.inf]})
    assert run.events()[0]["loss"] is None
    assert "NaN" not in (run.directory / "events.jsonl").read_text()


def test_a_torn_line_is_ignored_and_the_next_event_is_whole(tmp_path: Path) -> None:
    run = made(tmp_path)
    run.append({"event": "started"})
    with (run.directory / "events.jsonl").open("a") as log:
        log.write('{"event": "rou')
    assert [event["event"] for event in run.events()] == ["started"]
    run.append({"event": "round", "round": 1})
    assert [event["event"] for event in run.events()] == ["started", "round"]


def test_rounds_are_the_last_word_on_each_round_in_order(tmp_path: Path) -> None:
    run = made(tmp_path)
    for round_, loss in ((1, 0.9), (2, 0.8), (3, 0.7), (2, 0.6)):
        run.append({"event": "round", "round": round_, "loss": loss})
    assert [(event["round"], event["loss"]) for event in run.rounds()] == [(1, 0.9), (2, 0.6), (3, 0.7)]


def test_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    run = made(tmp_path, keep=2)
    for round_ in range(1, 6):
        commit(run, round_)
    assert checkpoints.numbers(run.directory / "checkpoints") == [4, 5]
    assert latest_round(run) == 5
    assert [event["round"] for event in run.rounds()] == [1, 2, 3, 4, 5]


def test_a_run_without_a_checkpoint_has_none(tmp_path: Path) -> None:
    assert made(tmp_path).latest() is None


def test_a_damaged_checkpoint_is_reported_once_and_the_one_before_taken(tmp_path: Path) -> None:
    run = made(tmp_path)
    for round_ in (1, 2, 3):
        commit(run, round_)
    damage(run, 3)
    with run.lock():
        assert latest_round(run) == 2
        assert run.reconcile() == []
    assert [(event["event"], event["round"]) for event in run.events()][-1] == ("damaged", 3)
    assert len(run.events()) == 4


def test_a_reader_does_not_write_about_damage(tmp_path: Path) -> None:
    run = made(tmp_path)
    commit(run, 1)
    damage(run, 1)
    assert run.latest() is None
    assert [event["event"] for event in run.events()] == ["round"]


def test_after_damage_the_run_goes_on_from_the_one_before_even_if_one_is_kept(tmp_path: Path) -> None:
    run = made(tmp_path, keep=2)
    for round_ in (1, 2, 3):
        commit(run, round_)
    damage(run, 3)
    run = Run.open(run.directory)
    run.settings = run.settings.model_copy(update={"keep": 1})
    commit(run, 3, loss=0.25)
    assert latest_round(run) == 3
    assert checkpoints.numbers(run.directory / "checkpoints") == [3]
    assert run.rounds()[-1]["loss"] == 0.25


def test_every_whole_round_is_in_the_log_after_reconciling_and_only_once(tmp_path: Path) -> None:
    run = made(tmp_path, keep=3)
    for round_ in (1, 2, 3):
        commit(run, round_)
    log = run.directory / "events.jsonl"
    before = run.events()
    log.write_text("".join(f"{json.dumps(event)}\n" for event in before[:1]))
    assert [event.get("round") for event in run.reconcile()] == [None]
    assert run.events()[:-1] == before
    assert run.reconcile() == []


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from fl_server.store.log import events_log
from fl_server.store.runs import Checkpoint, Run

run = Run.open(Path(sys.argv[1]))
with run.lock():
    run.commit(Checkpoint(1, {"w": np.ones(4)}), {"event": "round", "round": 1})
    events_log.append = lambda path, event: os.kill(os.getpid(), signal.SIGKILL)
    run.commit(Checkpoint(2, {"w": np.full(4, 2.0)}), {"event": "round", "round": 2, "loss": 0.125})
"""


def test_a_run_killed_between_commit_and_append_loses_nothing(tmp_path: Path) -> None:
    run = made(tmp_path)
    child = subprocess.run([sys.executable, "-c", KILLED, str(run.directory)], check=False)
    assert child.returncode == -signal.SIGKILL
    assert [event["round"] for event in run.rounds()] == [1]
    assert run.status == "interrupted"
    with run.lock():
        assert [event["loss"] for event in run.reconcile()] == [0.125]
    assert [event["round"] for event in run.rounds()] == [1, 2]
    assert latest_round(run) == 2


HELD = """
import sys, time
from pathlib import Path
from fl_server.store.runs import Run

with Run(Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_writer_is_told_who_writes_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    run = made(tmp_path)
    run.append({"event": "started"})
    command = [sys.executable, "-c", HELD, str(run.directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        assert run.status == "running"
        with (
            pytest.raises(StoreError, match=rf"run run is being written by another process \(pid {child.pid}\)"),
            run.lock(),
        ):
            pass
        child.kill()
    assert run.status == "interrupted"
    with run.lock():
        assert run.status == "running"


def test_the_status_is_the_last_word_of_the_run(tmp_path: Path) -> None:
    run = made(tmp_path)
    assert run.status == "interrupted"
    for event, status in (
        ("failed", "failed"),
        ("started", "interrupted"),
        ("finished", "finished"),
        ("damaged", "finished"),
    ):
        run.append({"event": event})
        assert run.status == status


def test_following_yields_events_as_they_are_appended_until_the_run_ends(tmp_path: Path) -> None:
    run = made(tmp_path)
    run.append({"event": "started"})

    def write() -> None:
        for round_ in (1, 2):
            time.sleep(0.06)
            run.append({"event": "round", "round": round_})
        run.append({"event": "finished"})

    writer = threading.Thread(target=write)
    writer.start()
    seen = [event["event"] for event in Run.open(run.directory).follow(lambda: False)]
    writer.join()
    assert seen == ["started", "round", "round", "finished"]


def test_following_a_resumed_run_does_not_end_at_its_first_end(tmp_path: Path) -> None:
    run = made(tmp_path)
    run.append({"event": "failed"})
    run.append({"event": "started"})
    threading.Timer(0.1, lambda: run.append({"event": "finished"})).start()
    assert [event["event"] for event in run.follow(lambda: False, skip=1)] == ["started", "finished"]


def test_following_stops_when_asked_and_gives_what_there_is(tmp_path: Path) -> None:
    run = made(tmp_path)
    assert list(run.follow(lambda: True)) == []
    run.append({"event": "started"})
    with (run.directory / "events.jsonl").open("a") as log:
        log.write('{"event": "torn')
    assert [event["event"] for event in run.follow(lambda: True)] == ["started"]


def test_a_store_lists_its_runs_by_name_and_nothing_else(tmp_path: Path) -> None:
    for name in ("b", "a"):
        Run.create(tmp_path / name, Settings())
    (tmp_path / "other").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "a" / "settings.toml").write_text("broken = = ")
    assert [run.name for run in listing(tmp_path)] == ["a", "b"]
    assert listing(tmp_path / "nothing") == []


def test_knowing_the_store_imports_neither_tensorflow_nor_numpy() -> None:
    code = (
        "import sys, fl_server.store.runs; sys.exit(bool({'tensorflow', 'keras', 'flwr', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
