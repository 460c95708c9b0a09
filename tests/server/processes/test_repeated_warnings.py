"""What goes wrong again and again is said at once, and then once a minute."""

import logging
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from fl_common.errors import StoreError
from fl_common.processes.forking import ForkServer
from fl_server.access.client_registry import Registry
from fl_server.processes.repeated_warnings import Repeats, ThinnedOut
from fl_server.store.disk.whole_writes import of_database
from fl_server.superlink.database import LinkDatabase
from fl_server.superlink.execution.control import Control
from fl_server.superlink.execution.executor import Executor
from fl_server.superlink.execution.supervisor import Supervisor
from tests.server.access.test_client_registry import Clock, public, token_of
from tests.server.store.test_checkpoints import small_disk  # noqa: F401  a fixture
from tests.server.store.test_disk_wait import fill

FULL = "(sqlite3.OperationalError) database or disk is full\n(Background on this error at: https://sqlalche.me/e/21)"


def test_a_text_is_said_once_a_minute_with_how_often_it_was_not():
    clock = Clock()
    logger, said = logging.Logger("fl"), []

    class Handler(logging.Handler):
        def emit(self, record):
            said.append(record.getMessage())

    handler = Handler()
    handler.addFilter(ThinnedOut(Repeats(clock)))
    logger.addHandler(handler)
    for second in range(130):
        clock.now = 1_000.0 + second
        logger.warning("the disk is %s", "full")
        logger.info("well")
    logger.warning("another")
    said = [each for each in said if each != "well"]
    more = "the disk is full (and 59 times more since it was last said)"
    assert said == ["the disk is full", more, more, "another"]


class Failure(grpc.RpcError):
    def code(self):
        return grpc.StatusCode.UNKNOWN

    def details(self):
        return f"Exception calling application: {FULL}"


def test_an_executor_that_cannot_claim_says_so_once_in_the_words_of_a_full_disk(tmp_path, caplog):
    executor = Executor(
        ForkServer(()), "127.0.0.1:9", log_file=tmp_path / "log", environment={}, launched=lambda *_: None
    )
    turns = iter(range(50))

    def claim():
        if next(turns, None) is None:
            executor._ending.set()
        raise Failure

    executor._ending.wait = lambda pause: executor._ending.is_set()
    with caplog.at_level(logging.WARNING):
        executor._execute(claim)
    (said,) = caplog.messages
    assert "the disk is full. Free some space there" in said
    assert "sqlite" not in said


def test_a_person_is_told_what_a_server_says_of_a_full_disk():
    words = Control("127.0.0.1:9")._refused(Failure())
    assert words.startswith("the server at 127.0.0.1:9 cannot take it: a database cannot be written: the disk is full.")
    assert of_database("attempt to write a readonly database").endswith("or name another directory with --out.")
    assert of_database("no such table: task") == ""


def test_a_supervisor_whose_database_is_full_says_so_once_a_minute(tmp_path):
    clock, said = Clock(), []
    (tmp_path / "state.db").mkdir()  # cannot be opened
    supervisor = Supervisor(LinkDatabase(tmp_path / "state.db"), tmp_path, say=said.append, clock=clock)
    supervisor.not_launched("token", "for a test")
    for second in range(0, 121, 6):
        clock.now = 1_000.0 + second
        supervisor.tick()
    assert len(said) == 3
    assert len(set(said)) == 1


@pytest.fixture
def eight_mib(small_disk: Path) -> Path:  # noqa: F811
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    return small_disk


def test_a_registry_on_a_full_disk_goes_on_once_there_is_room(eight_mib):
    registry = Registry(eight_mib, clock=Clock())
    token = token_of(registry, uses=2000)
    filler = fill(eight_mib)
    with pytest.raises(StoreError, match="the disk is full"):
        any(registry.admit(token, public()) is None for _ in range(1000))  # its journal has room for some
    before = len(registry.clients())
    filler.unlink()
    registry.admit(token, public())
    assert len(registry.clients()) == before + 1
    registry.close()
    with closing(sqlite3.connect(eight_mib / "clients.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
