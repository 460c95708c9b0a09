"""`fl up` returns when every process that it began is gone, however the run ended; helpers of Python's own too."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.integration.conftest import FL, PATIENCE, descendants, environment, events, until

MARK = "MARK_OF_THIS_TEST"  # in the environment of all that a command begins, whoever their parent is by then
SMALL = ("--clients", "2", "--set", "batch_size=64")
FAILING = """
import keras, numpy as np

def build_model():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model

def load_partition(partition, partitions):
    raise OSError("the shop is closed")
"""


class Family:
    """Every process that `fl up` began: as long as it was seen below it, or carries its mark."""

    def __init__(self, up: "subprocess.Popen[str]", mark: str) -> None:
        self.up, self._mark = up, mark
        self.seen: dict[int, psutil.Process] = {}
        self.over = threading.Event()

    def watch(self) -> None:
        while not self.over.wait(0.1):
            self.seen |= {each.pid: each for each in descendants(self.up.pid)}

    def alive(self) -> list[str]:
        """Return the commands of those that run, as it is now."""
        found = []
        for each in psutil.process_iter():
            with suppress(psutil.Error):
                ours = self.seen.get(each.pid) == each or each.environ().get(MARK) == self._mark
                if ours and each.pid != self.up.pid and each.status() != psutil.STATUS_ZOMBIE:
                    found.append(f"{each.pid} of {each.ppid()}: {' '.join(each.cmdline())}")
        return found


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator[Family]:
    mark = str(folder)
    with (folder / "up.log").open("w") as log:
        up = subprocess.Popen(
            [FL, "up", *arguments], stdout=log, stderr=log, text=True, env=environment(**{MARK: mark}),
            start_new_session=True,
        )  # fmt: skip
    family = Family(up, mark)
    watching = threading.Thread(target=family.watch)
    watching.start()
    try:
        yield family
    finally:
        family.over.set()
        watching.join()
        for each in family.seen.values():
            with suppress(psutil.Error):
                each.kill()
        up.kill()
        up.wait()


def helpers(family: Family) -> list[str]:
    """Return the commands of the helpers of Python's own that were seen alive."""
    return [line for line in family.alive() if "multiprocessing.forkserver" in line or "resource_tracker" in line]


@pytest.mark.slow
def test_a_finished_run_leaves_no_process(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with started(tmp_path, *SMALL, "--rounds", "3", "--out", str(out)) as family:
        until(lambda: events(out, "round"), "the first round", family.up)
        assert len(family.alive()) >= 6  # or the test sees nothing: server, its app, two clients, two helpers
        assert len(helpers(family)) >= 2
        code = family.up.wait(timeout=PATIENCE)
        assert family.alive() == []
    assert code == 0


@pytest.mark.slow
@pytest.mark.parametrize("to_all", [True, False])
def test_ctrl_c_leaves_no_process(tmp_path: Path, to_all: bool) -> None:
    out = tmp_path / "run"
    with started(tmp_path, *SMALL, "--rounds", "10000", "--out", str(out)) as family:
        until(lambda: events(out, "round"), "the first round", family.up)
        send = os.killpg if to_all else os.kill
        send(family.up.pid, signal.SIGINT)
        code = family.up.wait(timeout=PATIENCE)
        assert family.alive() == []
    assert code == 130


@pytest.mark.slow
def test_a_failed_run_leaves_no_process(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(FAILING)
    out = tmp_path / "run"
    with started(tmp_path, "--task", str(tmp_path / "shop.py"), *SMALL, "--out", str(out)) as family:
        code = family.up.wait(timeout=PATIENCE)
        assert family.alive() == []
        assert len(family.seen) >= 6
    assert code == 1


@pytest.mark.slow
def test_a_task_that_does_not_import_leaves_no_process(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("import no_such_thing\n")
    with started(tmp_path, "--task", str(tmp_path / "shop.py"), *SMALL, "--out", str(tmp_path / "run")) as family:
        code = family.up.wait(timeout=PATIENCE)
        assert family.alive() == []
    assert code == 2
