"""The SuperLink as a child process: a taken port is named, and nothing is left when it stops."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import psutil
import pytest

from fl_common.errors import NetworkError
from fl_common.processes.forking import ForkServer
from fl_server.access import home_files
from fl_server.processes.listening import Addresses, check_free, free_ports
from fl_server.processes.standstill import work_of
from fl_server.superlink.process import SuperLink
from fl_server.superlink.restarts import RestartedSuperLink
from tests.support.driven_server import Server, until


def superlink(directory, addresses):
    return SuperLink(
        ForkServer(("flwr.server.app",)), addresses, directory=directory, access=home_files.prepare(directory)
    )


def listening():
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    return taken


def test_free_ports_are_free_and_differ():
    ports = free_ports(5)
    assert len(set(ports)) == 5
    for port in ports:
        check_free(f"127.0.0.1:{port}", "a test")
        check_free(f"0.0.0.0:{port}", "a test")


@pytest.mark.parametrize(("name", "purpose"), [("fleet", "Fleet"), ("control", "Control"), ("appio", "ServerAppIo")])
def test_a_port_in_use_is_an_error_that_names_it(tmp_path, name, purpose):
    with listening() as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        addresses = Addresses(**(vars(Addresses.local()) | {name: address}))
        server = superlink(tmp_path, addresses)
        with pytest.raises(NetworkError, match=rf"cannot listen on {address} for {purpose}: .*in use"):
            server.start()
        assert server.process is None
        assert not server.alive
        server.stop()


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:port", "127.0.0.1:99999", "192.0.2.1:9092", ":"])
def test_an_address_that_cannot_be_listened_on_is_an_error(address):
    with pytest.raises(NetworkError, match=r"cannot listen on .* for Fleet|the address for Fleet takes HOST:PORT"):
        check_free(address, "Fleet")


def test_a_superlink_that_refuses_its_arguments_is_an_error_with_its_last_words(tmp_path):
    (tmp_path / "state.db").write_bytes(b"this is no database" * 100)
    server = SuperLink(
        ForkServer(("flwr.server.app",)),
        Addresses.local(),
        directory=tmp_path,
        access=home_files.prepare(tmp_path),
        database=tmp_path / "state.db",
        environment={"FLWR_TELEMETRY_ENABLED": "0"},
    )
    try:
        server.start()
        with pytest.raises(NetworkError, match=r"the SuperLink did not start: .*database"):
            server.wait_until_ready()
    finally:
        server.stop()


def test_nothing_is_left_when_it_stops_and_its_ports_are_free_again(tmp_path):
    server = Server(tmp_path)
    try:
        server.start()
        assert server.superlink.alive
        process = psutil.Process(server.superlink.process.pid)
        family = [process, *process.children(recursive=True)]
        secret = tmp_path / "executor.secret"
        assert secret.stat().st_mode & 0o077 == 0
        grid = server.grid()
        assert list(grid.get_node_ids()) == []
        grid.close()
    finally:
        server.stop()
    assert not server.superlink.alive
    assert not [each for each in family if each.is_running()]
    for address in vars(server.addresses).values():
        until(lambda address=address: check_free(address, "a test") is None)
    assert not [thread for thread in threads() if thread == "executor"]


def threads():
    import threading

    return [thread.name for thread in threading.enumerate()]


@contextmanager
def kept(directory, **said):
    """A SuperLink that is kept up, and looked after by the test."""
    server = Server(directory)
    keeper = RestartedSuperLink(server.superlink, **said)
    try:
        yield server.superlink, keeper
    finally:
        if server.superlink.alive:
            os.kill(server.superlink.process.pid, signal.SIGCONT)
        server.stop()


def test_a_start_that_is_held_back_is_waited_for_and_a_hang_after_it_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("fl_server.superlink.restarts.HUNG_SECONDS", 0.0)
    monkeypatch.setattr("fl_server.superlink.restarts.BUSY_SECONDS", 0.0)
    said, waited = [], []
    with kept(tmp_path, say=said.append, meanwhile=lambda: waited.append(True)) as (link, keeper):
        keeper.start(wait=False)
        os.kill(link.process.pid, signal.SIGSTOP)
        turn = link.executor.turns
        while link.executor.turns < turn + 5:  # questions that nobody answers
            keeper.tick()
            time.sleep(0.01)
        assert said == []
        os.kill(link.process.pid, signal.SIGCONT)
        link.wait_until_ready(lambda: waited.append(True))
        assert waited
        until(lambda: not link.executor.silence())
        os.kill(link.process.pid, signal.SIGSTOP)
        until(lambda: keeper.tick() or not link.alive)
        assert said[0].startswith("the SuperLink has not answered for")


def test_a_superlink_that_computes_has_more_time_than_one_that_does_nothing(tmp_path):
    spin, idle = (
        subprocess.Popen([sys.executable, "-c", code]) for code in ("while True: pass", "import time; time.sleep(600)")
    )
    try:
        until(lambda: work_of(spin.pid) > 0.2)
        assert work_of(idle.pid) < work_of(spin.pid)
    finally:
        for process in (spin, idle):
            process.kill()
            process.wait()
    assert work_of(spin.pid) == 0.0
