"""A disk that is full just before each write of a run's process: the run waits, or goes on without, and ends well."""

import io
import logging
import os
import subprocess
import threading
from pathlib import Path

import pytest

from fl_client.app import Workplace, make_app
from fl_common.processes.forking import ForkServer
from fl_common.processes.streams import lossy
from fl_common.settings.schema import Settings
from fl_server import app
from fl_server.store.runs import Run
from fl_server.superlink.execution import app_bundle
from fl_server.superlink.execution.app_installation import install, is_whole
from tests.server.store.test_checkpoints import small_disk  # noqa: F401  a fixture
from tests.server.store.test_disk_wait import fill
from tests.support.in_process_grid import InProcessGrid, client

COMMON = {"task": "digits", "partitions": 2, "rounds": 2, "keep": 1, "seed": 7, "disk_wait_seconds": 60.0}


@pytest.fixture(scope="module")
def clients():
    return make_app(Workplace())


class Filler:
    """Fills the disk when it is shown the event `at` for the `nth` time, and frees it once the run waits for room."""

    def __init__(self, disk, at, nth=1):
        self.disk, self.at, self.nth = disk, at, nth
        self.seen = []

    def on_event(self, event):
        self.seen.append(event["event"])
        if event["event"] == self.at and self.seen.count(self.at) == self.nth:
            fill(self.disk)
        if event["event"] == "paused" and (self.disk / "filler").exists():
            (self.disk / "filler").unlink()

    def close(self):
        pass


@pytest.mark.parametrize(
    ("at", "nth"),
    {"the checkpoint of round 1": ("started", 1), "that of round 2": ("round", 1), "the model": ("round", 2)}.values(),
)
def test_a_run_whose_disk_is_full_at_any_event_ends_with_all_its_rounds(clients, small_disk, at, nth, caplog):  # noqa: F811
    grid = InProcessGrid({number: client(clients, resident=True) for number in (5, 6)})
    settings = Settings(**COMMON | {"out": str(small_disk / "run"), "plot": False})
    run = app.open_run(settings)
    filler = Filler(small_disk, at, nth)
    app.serve(grid, settings, run, observer=filler)
    assert "paused" in filler.seen
    assert [event["round"] for event in run.rounds()] == [1, 2]
    assert run.status == "finished"
    assert Path(run.events()[-1]["model"]).is_file()


def test_a_full_disk_ends_the_logs_for_tensorboard_and_says_so(small_disk, caplog):  # noqa: F811
    from fl_server.observers.tensorboard import TensorBoard

    board = TensorBoard(small_disk / "tensorboard")
    fill(small_disk)
    with caplog.at_level(logging.WARNING):
        for number in (1, 2):
            board.on_event({"event": "round", "round": number, "loss": 1.0})
        board.close()
    assert [record.message for record in caplog.records if "TensorBoard" in record.message] == [caplog.messages[-1]]
    assert "No space left on device" in caplog.text


def test_a_picture_that_cannot_be_written_is_left_out_and_the_reason_kept(small_disk):  # noqa: F811
    settings = Settings(out=str(small_disk / "run"))
    run = Run.create(small_disk / "run", settings)
    run.append({"event": "round", "round": 1, "loss": 1.0})
    filler = fill(small_disk)
    told = app.picture(settings, run)
    assert told["plot"] is None
    assert "the disk is full" in told["plot_error"]
    assert not list(run.directory.glob("*.png"))
    filler.unlink()
    assert app.picture(settings, run) == {"plot": str(run.directory / "plot.png")}


def test_a_run_begins_once_there_is_room_and_the_lock_needs_none(small_disk, tmp_path, monkeypatch):  # noqa: F811
    folder = tmp_path / "bundle" / "fl_user_task"
    folder.mkdir(parents=True)
    (folder / "shop.py").write_bytes(b"#" * 100_000)
    monkeypatch.setattr(app, "path_of", lambda name: tmp_path / "bundle" / name)
    settings = Settings(task="fl_user_task/shop.py", out=str(small_disk / "run"), disk_wait_seconds=60.0)
    filler = fill(small_disk)
    threading.Timer(0.3, lambda: os.truncate(filler, filler.stat().st_size - 20_000)).start()  # not for the task yet
    threading.Timer(1.5, filler.unlink).start()
    run = app.open_run(settings)
    assert (run.directory / "task" / "shop.py").stat().st_size == 100_000
    fill(small_disk)
    with run.lock():
        assert Run(run.directory).is_locked()


def test_an_app_is_unpacked_once_there_is_room(small_disk, monkeypatch):  # noqa: F811
    monkeypatch.setenv("FLWR_HOME", str(small_disk))
    content, _, _ = app_bundle.build(Settings())
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)  # an app takes more than one MiB
    filler = fill(small_disk)
    threading.Timer(0.3, filler.unlink).start()
    folder = install(content)
    assert is_whole(folder, content)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_what_a_process_says_to_a_full_disk_is_lost_and_nothing_else():
    with Path("/dev/full").open("w") as full:
        stream = lossy(full.fileno())
        assert stream.write("lost\n") == 5
        stream.flush()
        stream.close()
    read, write = os.pipe()
    with io.open(read) as output:  # noqa: UP020
        lossy(write).write("grüße \ud800\n")
        os.close(write)
        assert output.read() == "grüße \\ud800\n"


@pytest.mark.parametrize("log", ["/dev/full", "/nowhere/child.log"])
def test_a_child_whose_log_cannot_be_written_works_on(log):
    child = ForkServer(()).start(print, "a word", name="child", log_file=Path(log))
    child.join(60)
    assert child.exitcode == 0
