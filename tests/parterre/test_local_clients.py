"""The clients of `fl up`: one that ends is named at once, with its signal and its log, and started again."""

import os
import signal
from pathlib import Path

import pytest

from fl_common.errors import DataError
from fl_common.processes.forking import ForkServer
from fl_server.superlink.execution.supervisor import FIRST_PAUSE
from parterre.local_clients import LocalClients


def idle() -> None:
    signal.pause()


def mistaken() -> None:
    raise DataError("site_b.csv has no column 'species'")


class Bench:
    """Clients in processes of their own, with a clock that is moved by hand."""

    def __init__(self, logs: Path, **more: int) -> None:
        self.fork_server, self.logs, self.said, self.now = ForkServer(()), logs, [], 0.0
        self.targets = {}
        self.clients = LocalClients(self._start, logs, say=self.said.append, clock=lambda: self.now, **more)

    def _start(self, number: int):
        target = self.targets.get(number, idle)
        return self.fork_server.start(target, name=f"client-{number}", log_file=self.logs / f"client-{number}.log")

    def end(self, number: int, how: int) -> None:
        process = self.clients.processes[number]
        os.kill(process.pid, how)
        process.join()


@pytest.fixture
def bench(tmp_path: Path):
    bench = Bench(tmp_path, needed=2)
    yield bench
    bench.fork_server.stop()


def test_a_client_that_is_killed_is_named_with_its_signal_and_its_log_and_started_again(bench: Bench):
    bench.clients.begin(2)
    assert bench.clients.tend() == ""
    bench.end(1, signal.SIGKILL)
    first = bench.clients.processes[1]
    assert bench.clients.tend() == ""
    (line,) = bench.said
    assert line.startswith(
        "client 1 was killed (SIGKILL: the system does so where memory is short) and is started again"
    )
    assert line.endswith(f"(1 of at most 5 in a row); log: {bench.logs / 'client-1.log'}")
    assert bench.clients.tend() == ""  # said once, and not started yet
    assert bench.clients.processes[1] is first
    bench.now += FIRST_PAUSE
    assert bench.clients.tend() == ""
    assert bench.clients.processes[1].is_alive()
    assert len(bench.said) == 1


def test_a_mistake_in_what_a_client_was_given_is_told_in_its_own_words_and_not_tried_again(bench: Bench):
    bench.targets[0] = mistaken
    bench.clients.begin(2)
    bench.clients.processes[0].join()
    with pytest.raises(DataError, match=r"^client-0 cannot take part: site_b\.csv has no column 'species'$"):
        bench.clients.tend()
    assert "Traceback" not in (bench.logs / "client-0.log").read_text()


def test_a_run_that_can_do_without_a_client_goes_on_without_it(tmp_path: Path):
    bench = Bench(tmp_path, needed=1, limit=0)
    try:
        bench.clients.begin(2)
        bench.end(0, signal.SIGTERM)
        assert bench.clients.tend() == ""
        assert bench.said == [f"client 0 was ended by SIGTERM, 1 times in a row (log: {tmp_path}/client-0.log); "
                              "it is not started again"]  # fmt: skip
        bench.end(1, signal.SIGKILL)
        assert bench.clients.tend().startswith("every client ended")
        assert len(bench.said) == 1
    finally:
        bench.fork_server.stop()


def test_a_client_that_ran_steadily_begins_a_new_row(bench: Bench):
    bench.clients.begin(2)
    for _ in range(2):
        bench.now += 100.0
        bench.end(0, signal.SIGKILL)
        assert bench.clients.tend() == ""
        bench.now += FIRST_PAUSE
        assert bench.clients.tend() == ""
    assert all("(1 of at most 5 in a row)" in line for line in bench.said)
