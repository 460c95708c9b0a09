"""`fl health` and the metrics of a real server and a real client."""

import json
import signal
import urllib.request
from pathlib import Path

import pytest

from fl_server.processes.listening import free_ports
from tests.integration.conftest import FL, Start, fl, stop, until


def metrics(port: int) -> dict[str, float]:
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    return {
        name: float(value) for name, _, value in (line.rpartition(" ") for line in text.splitlines() if line[0] != "#")
    }


def test_health_without_a_process_says_so_and_exits_with_1(tmp_path: Path) -> None:
    for arguments in (("server", "--store", str(tmp_path)), ("client", "--state", str(tmp_path))):
        asked = fl("health", *arguments)
        assert asked.returncode == 1
        assert "the process has not started" in asked.stderr
        assert len(asked.stderr.splitlines()) == 1


@pytest.mark.slow
def test_health_and_metrics_of_a_server_and_a_client(start: Start, tmp_path: Path) -> None:
    fleet, control, appio, server_metrics, client_metrics = free_ports(5)
    store, state = tmp_path / "store", tmp_path / "state"
    state.mkdir()
    server = start(
        FL, "server", "--store", str(store), "--fleet-port", str(fleet), "--control-port", str(control),
        "--appio-port", str(appio), "--metrics-port", str(server_metrics),
    )  # fmt: skip

    def well(*arguments: str) -> bool:
        return fl("health", *arguments).returncode == 0

    until(lambda: well("server", "--store", str(store)), "a healthy server", server)
    token = tmp_path / "token"
    assert fl("enroll", "token", "--store", str(store), "--file", str(token)).returncode == 0
    client = start(
        FL, "client", "--server", f"127.0.0.1:{fleet}", "--state", str(state), "--token-file", str(token),
        "--metrics-port", str(client_metrics),
    )  # fmt: skip
    until(lambda: well("client", "--state", str(state)), "a healthy client", client)
    done = fl(
        "run", "--server", f"127.0.0.1:{control}", "--store", str(store), "--json", "--rounds", "2",
        "--set", "min_clients=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    finished = json.loads(done.stdout.splitlines()[-1])

    found = metrics(server_metrics)
    assert found["parterre_rounds_total"] == 2
    assert found['parterre_accuracy{evaluated_on="test"}'] == finished["accuracy"]
    assert found["parterre_connected_clients"] == 1
    assert found['parterre_memory_bytes{process="superlink"}'] > 10_000_000
    theirs = metrics(client_metrics)
    assert theirs['parterre_client_messages_total{type="train"}'] == 2
    assert theirs['parterre_client_errors_total{type="train"}'] == 0
    assert theirs["parterre_client_connected"] == 1
    assert theirs["parterre_client_sent_bytes_total"] >= 2 * found["parterre_model_bytes"]
    assert theirs["parterre_client_received_bytes_total"] >= 4 * found["parterre_model_bytes"]

    server.send_signal(signal.SIGKILL)
    server.wait()
    until(lambda: "does not answer" in fl("health", "server", "--store", str(store)).stderr, "the server's end noticed")
    until(lambda: not well("client", "--state", str(state)), "the client to notice", client)
    alive = fl("health", "client", "--state", str(state), "--alive")
    assert (alive.returncode, alive.stdout[:17]) == (0, "alive: connecting")
    assert stop(client) == 0
