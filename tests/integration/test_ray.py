"""Flower's own simulation on Ray: on one machine, and on a cluster of two nodes started here, by both commands."""

import json
import re
import shutil
import signal
import subprocess
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from fl_server.processes.listening import free_ports
from fl_server.store.runs import Run
from tests.integration.conftest import Start, descendants, environment, events, gone, processes, stop, until
from tests.integration.test_flower_tools import BIN, ROOT, flwr

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed in this environment: make test-ray"),
]

MARKING = Path(__file__).parents[1] / "support" / "marking_task.py"
PATH = f"{BIN}:/usr/bin:/bin"
CALM = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "PATH": PATH, "TF_ENABLE_ONEDNN_OPTS": "0"}
QUIET = "tensorboard=false plot=false"


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster: its address, and the folder in which clients leave marks."""

    address: str
    marks: Path

    def nodes(self) -> set[str]:
        """Return the nodes whose clients left a mark since the last time."""
        found = list(self.marks.iterdir())
        for mark in found:
            mark.unlink()
        return {mark.name.partition("-")[0] for mark in found}


@pytest.fixture(scope="module")
def short() -> Iterator[Path]:
    """Give a directory with a short name: that of a socket has room for 107 letters, and Ray's own are long."""
    path = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, short: Path) -> Iterator[Cluster]:
    """Two nodes of one CPU each."""
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "marks").mkdir()
    port, clients = free_ports(2)
    address = f"127.0.0.1:{port}"
    common = (
        "--block", "--num-cpus=1", "--node-ip-address=127.0.0.1", "--disable-usage-stats", f"--temp-dir={short}",
        "--min-worker-port=0", "--max-worker-port=0",  # any: Ray's own range may hold the ports that were drawn
    )  # fmt: skip
    variables = {**CALM, "MARKS": str(folder / "marks"), "PYTHONPATH": str(ROOT)}
    with processes(folder) as start:
        head = ("--head", f"--port={port}", f"--ray-client-server-port={clients}", "--include-dashboard=false")
        for log, where in (("head", head), ("second", (f"--address={address}",))):
            process = start(str(BIN / "ray"), "start", *where, *common, log=log, **variables)
            until(lambda log=log: "Ray runtime started" in (folder / log).read_text(), f"Ray's {log} node", process)
        yield Cluster(address, folder / "marks")


def simulate(app: Path, nodes: int, config: str, address: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(BIN / "flower-simulation"), "--app", str(app), "--num-supernodes", str(nodes), "--backend", "ray",
         "--run-config", config],
        capture_output=True, text=True, timeout=400, check=False, cwd=ROOT,
        env=environment(RAY_ADDRESS=address, **CALM),
    )  # fmt: skip


def test_rays_clients_end_in_the_weights_of_the_batched_ones(tmp_path: Path) -> None:
    done = simulate(ROOT, 4, f"rounds=2 {QUIET} out='{tmp_path}/ray'", "local")
    assert done.returncode == 0, done.stdout + done.stderr
    on_ray = Run.open(tmp_path / "ray")
    assert [(event["cohort"], event["replies"]) for event in on_ray.rounds()] == [(4, 4), (4, 4)]
    batched = subprocess.run(
        [str(BIN / "flower-simulation"), "--app", str(ROOT), "--num-supernodes", "4",
         "--run-config", f"rounds=2 {QUIET} out='{tmp_path}/batched'"],
        capture_output=True, text=True, timeout=240, check=False, env=environment(),
    )  # fmt: skip
    assert batched.returncode == 0, batched.stderr
    expected, got = (Run.open(tmp_path / name).latest() for name in ("batched", "ray"))
    assert expected is not None
    assert got is not None
    for name, array in expected.arrays.items():
        np.testing.assert_allclose(got.arrays[name], array, rtol=0, atol=1e-5, err_msg=name)


def test_both_nodes_of_a_cluster_do_client_work(tmp_path: Path, cluster: Cluster) -> None:
    task, out = MARKING.relative_to(ROOT), tmp_path / "run"
    done = simulate(ROOT, 6, f"rounds=2 {QUIET} task='{task}' min_clients=6 out='{out}'", cluster.address)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [event["replies"] for event in Run.open(out).rounds()] == [6, 6]
    assert len(cluster.nodes()) == 2


def test_flwr_run_simulates_on_the_cluster(tmp_path: Path, cluster: Cluster, start: Start) -> None:
    control, appio = free_ports(2)
    home = tmp_path / "home"
    home.mkdir()
    start(
        str(BIN / "flower-superlink"), "--insecure", "--simulation", "--disable-runtime-dependency-installation",
        "--control-api-address", f"127.0.0.1:{control}", "--serverappio-api-address", f"127.0.0.1:{appio}",
        FLWR_HOME=str(home), RAY_ADDRESS=cluster.address, **CALM,
    )  # fmt: skip
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{control}"\ninsecure = true\n'
    )
    done = flwr(
        home, "run", ".", "here", "--stream",
        "--federation-config", "num-supernodes=4 client-resources-num-cpus=1",
        "--run-config", f"rounds=2 {QUIET} task='{MARKING}' min_clients=4 store='{tmp_path}/runs'",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = [json.loads(line) for line in re.findall(r'^{"event".*}$', done.stdout, re.MULTILINE)]
    assert [event["replies"] for event in found if event["event"] == "round"] == [4, 4], done.stdout
    assert found[-1]["event"] == "finished"
    assert len(cluster.nodes()) == 2


def test_a_foreign_app_has_its_run_config_and_its_state(tmp_path: Path, cluster: Cluster) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.flwr.app.components]\nserverapp = "foreign:server"\nclientapp = "foreign:client"\n'
        "[tool.flwr.app.config]\nstep = 1.0\n"
    )
    (tmp_path / "foreign.py").write_text(
        textwrap.dedent(
            """
            import numpy as np
            from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
            from flwr.clientapp import ClientApp
            from flwr.serverapp import ServerApp
            from flwr.serverapp.strategy import FedAvg

            client, server = ClientApp(), ServerApp()

            @client.train()
            def train(message, context):
                calls = context.state.config_records.setdefault("calls", ConfigRecord({"n": 0}))
                calls["n"] += 1
                (w,) = message.content["arrays"].to_numpy_ndarrays()
                w = w + context.run_config["step"] * calls["n"]
                content = {"arrays": ArrayRecord([w]), "metrics": MetricRecord({"num-examples": 1})}
                return Message(RecordDict(content), reply_to=message)

            @server.main()
            def main(grid, context):
                start = ArrayRecord([np.zeros(1)])
                # Nodes come one after the other, and how many are asked is settled by how many are there at first.
                rule = FedAvg(fraction_evaluate=0.0, min_train_nodes=3, min_available_nodes=3)
                result = rule.start(grid, start, num_rounds=2)
                print("result", result.arrays.to_numpy_ndarrays()[0].tolist())
            """
        )
    )
    done = simulate(tmp_path, 3, "step=0.5", cluster.address)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "result [1.5]" in done.stdout  # 0.5 in the first round, and twice that in the second


def test_ctrl_c_ends_a_run_on_ray_and_its_workers(tmp_path: Path, start: Start) -> None:
    out = tmp_path / "run"
    running = start(
        str(BIN / "flower-simulation"), "--app", str(ROOT), "--num-supernodes", "2", "--backend", "ray",
        "--run-config", f"rounds=100000 {QUIET} out='{out}'", log="stopped.log", RAY_ADDRESS="local", **CALM,
    )  # fmt: skip
    until(lambda: events(out, "round"), "the first round", running)
    family = descendants(running.pid)
    assert stop(running, signal.SIGINT) == 130
    assert "Traceback" not in (tmp_path / "stopped.log").read_text()
    assert events(out, "rejected") == []  # a worker that was ended is no client that failed
    until(lambda: gone(family), "the end of Ray's processes")


def test_what_cannot_run_on_ray_is_said_in_one_line(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    for config, address, words in (
        ("fleet_speed=2.0", "local", "fleet_speed"),
        (f"out='{tmp_path}/run'", f"127.0.0.1:{port}", f"no Ray cluster at 127.0.0.1:{port}"),
    ):
        done = simulate(ROOT, 3, config, address)
        assert done.returncode != 0
        assert words in done.stderr.splitlines()[-1]
        assert done.stderr.splitlines()[-1].startswith("error: ")
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
