"""The commands `fl simulate` and `flower-simulation`, as a person runs them."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from fl_common.errors import SettingsError
from fl_server.store.runs import Run
from fl_simulation.flower.manifest import parsed, read_app
from tests.support.simulated_federation import final

ROOT = Path(__file__).parents[3]


def command(module: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    clean = {key: value for key, value in os.environ.items() if key not in ("FL_STORE", "TF_ENABLE_ONEDNN_OPTS")}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        env=clean | {"PYTHONPATH": str(ROOT), "FLWR_TELEMETRY_ENABLED": "0"},
        check=False,
    )


def simulate(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return command("fl_cli.main", "simulate", *arguments)


@pytest.mark.slow
def test_a_simulated_run_leaves_what_a_deployed_one_leaves_and_resumes(tmp_path: Path):
    out, whole = tmp_path / "run", tmp_path / "whole"
    common = ("--clients", "40", "--fraction", "0.2", "--strategy", "fedadam", "--json")
    done = simulate(*common, "--rounds", "2", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    assert printed == Run.open(out).events()
    assert [event["event"] for event in printed] == ["started", "engine", "round", "round", "finished"]
    assert all(event["cohort"] == event["replies"] == 8 for event in printed if event["event"] == "round")
    assert all((out / name).exists() for name in ("model.keras", "plot.png", "tensorboard", "settings.toml"))
    resumed = command("fl_cli.main", "resume", str(out), "--rounds", "4")
    assert resumed.returncode == 0, resumed.stderr
    assert simulate(*common, "--rounds", "4", "--out", str(whole)).returncode == 0
    for name, array in final(Run.open(whole)).items():
        np.testing.assert_array_equal(final(Run.open(out))[name], array)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--clients", "2000"), 2, "1438 examples cannot be split into 2000 partitions"),
        (("--clients", "10", "--set", "clients_per_round=11"), 2, "clients_per_round must be at most --clients (10)"),
        (("--clients", "10", "--fraction", "0.01"), 2, "fraction=0.01 of 10 clients is none. Set it to at least 0.1"),
        (("--clients", "4", "--set", "model=cnn", "--set", "engine=vectorized"), 2, "layer conv_1 (Conv2D)"),
        (("--clients", "4", "--set", "engine=fastest"), 2, "engine: "),
        (("--clients", "4", "--set", "memory_gb=1e-6"), 2, "memory_gb must be at least"),
        (("--clients", "4", "--set", "min_clients=5"), 2, "min_clients must be at most partitions (4)"),
        (("--clients", "4", "--set", "where=site=berlin"), 2, "labels, which simulated clients do not have"),
    ],
)
def test_what_cannot_be_simulated_is_said_in_one_line_and_leaves_no_run(tmp_path: Path, arguments, code, words):
    done = simulate(*arguments, "--rounds", "1", "--out", str(tmp_path / "run"))
    assert done.returncode == code
    assert words in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_flower_simulation_runs_this_very_app(tmp_path: Path):
    out = tmp_path / "run"
    done = command(
        "fl_simulation.flower.command", "--app", str(ROOT), "--num-supernodes", "30",
        "--run-config", f"rounds=2 fraction=0.5 tensorboard=false out='{out}'",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [(event["cohort"], event["replies"]) for event in Run.open(out).rounds()] == [(15, 15), (15, 15)]


def test_flower_simulation_runs_a_foreign_app_with_its_own_clients(tmp_path: Path):
    (tmp_path / "pyproject.toml").write_text(
        textwrap.dedent(
            """
            [tool.flwr.app.components]
            serverapp = "foreign:server"
            clientapp = "foreign:client"
            [tool.flwr.app.config]
            start = 1.0
            """
        )
    )
    (tmp_path / "foreign.py").write_text(
        textwrap.dedent(
            """
            import numpy as np
            from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
            from flwr.clientapp import ClientApp
            from flwr.serverapp import ServerApp
            from flwr.serverapp.strategy import FedAvg

            client, server = ClientApp(), ServerApp()

            @client.train()
            def train(message, context):
                (w,) = message.content["arrays"].to_numpy_ndarrays()
                w = w + context.node_config["partition-id"]
                content = {"arrays": ArrayRecord([w]), "metrics": MetricRecord({"num-examples": 1})}
                return Message(RecordDict(content), reply_to=message)

            @server.main()
            def main(grid, context):
                start = ArrayRecord([np.full(2, context.run_config["start"], np.float32)])
                result = FedAvg(fraction_evaluate=0.0).start(grid, start, num_rounds=2)
                print("result", result.arrays.to_numpy_ndarrays()[0].tolist())
            """
        )
    )
    done = command(
        "fl_simulation.flower.command", "--app", str(tmp_path), "--num-supernodes", "3", "--run-config", "start=2.5"
    )
    assert done.returncode == 0, done.stderr
    assert "result [4.5, 4.5]" in done.stdout


def test_a_folder_that_is_no_app_is_refused(tmp_path: Path):
    done = command("fl_simulation.flower.command", "--app", str(tmp_path), "--num-supernodes", "3")
    assert done.returncode == 2
    assert "is no Flower app" in done.stderr
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    with pytest.raises(SettingsError, match="is no Flower app"):
        read_app(tmp_path, "")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("clients_per_round=5", "clients_per_round must be at most --num-supernodes (3); got 5"),
        ("fraction=0.1", "fraction=0.1 of 3 clients is none"),
        ("rounds=none", "rounds: "),
        pytest.param("memory_gb=1e-6", "memory_gb must be at least", marks=pytest.mark.slow),
        pytest.param("partitions=2000", "1438 examples cannot be split into 2000 partitions", marks=pytest.mark.slow),
        pytest.param("engine=vectorized model=cnn", "layer conv_1 (Conv2D)", marks=pytest.mark.slow),
    ],
)
def test_flower_simulation_refuses_what_cannot_be_simulated_in_one_line(tmp_path: Path, config: str, words: str):
    out = tmp_path / "run"
    done = command(
        "fl_simulation.flower.command",
        "--app",
        str(ROOT),
        "--num-supernodes",
        "3",
        "--run-config",
        f"{config} out='{out}'",
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not out.exists()


def test_ray_is_asked_for_by_name_where_it_is_missing():
    pytest.importorskip("flwr")
    try:
        import ray  # noqa: F401
    except ImportError:
        done = command("fl_simulation.flower.command", "--app", str(ROOT), "--num-supernodes", "3", "--backend", "ray")
        assert done.returncode == 2
        assert "pip install 'parterre[ray]'" in done.stderr


def test_a_run_config_is_read_as_flower_reads_it():
    assert parsed("rounds=5 task='my task' mu=0.5 plot=false model=cnn") == {
        "rounds": 5,
        "task": "my task",
        "mu": 0.5,
        "plot": False,
        "model": "cnn",
    }
    with pytest.raises(SettingsError, match="key=value"):
        parsed("rounds 5")
