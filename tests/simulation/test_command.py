"""The commands `fl simulate` and `flower-simulation`, as a person runs them."""
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/

ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
import json
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
import os
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
import subprocess
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
import sys
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
import textwrap
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
from pathlib import Path
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/

ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
import numpy as np
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
import pytest
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/

ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
from fl_common.errors import SettingsError
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
from fl_server.runs import Run
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
from fl_simulation.command import parsed, read_app
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
from tests.simulation.federation import final
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/

ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
ROOT = Path(__file__).parents[2]
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/

ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/

ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
def command(module: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    clean = {key: value for key, value in os.environ.items() if key not in ("FL_STORE", "TF_ENABLE_ONEDNN_OPTS")}
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    return subprocess.run(
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
        [sys.executable, "-m", module, *arguments],
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
        capture_output=True,
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
        text=True,
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
        timeout=240,
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
        env=clean | {"PYTHONPATH": str(ROOT), "FLWR_TELEMETRY_ENABLED": "0"},
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
        check=False,
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    )
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/

ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/

ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
def simulate(*arguments: str) -> "subprocess.CompletedProcess[str]":
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    return command("fl_cli.main", "simulate", *arguments)
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/

ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/

ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
def test_a_simulated_run_leaves_what_a_deployed_one_leaves_and_resumes(tmp_path: Path):
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    out, whole = tmp_path / "run", tmp_path / "whole"
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    common = ("--clients", "40", "--fraction", "0.2", "--strategy", "fedadam", "--json")
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    done = simulate(*common, "--rounds", "2", "--out", str(out))
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    assert done.returncode == 0, done.stderr
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    assert done.stderr == ""
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    printed = [json.loads(line) for line in done.stdout.splitlines()]
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    assert printed == Run.open(out).events()
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    assert [event["event"] for event in printed] == ["started", "engine", "round", "round", "finished"]
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    assert all(event["cohort"] == event["replies"] == 8 for event in printed if event["event"] == "round")
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    assert all((out / name).exists() for name in ("model.keras", "plot.png", "tensorboard", "settings.toml"))
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    resumed = command("fl_cli.main", "resume", str(out), "--rounds", "4")
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    assert resumed.returncode == 0, resumed.stderr
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    assert simulate(*common, "--rounds", "4", "--out", str(whole)).returncode == 0
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    for name, array in final(Run.open(whole)).items():
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
        np.testing.assert_array_equal(final(Run.open(out))[name], array)
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/

ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/

ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
@pytest.mark.parametrize(
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    ("arguments", "code", "words"),
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    [
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
        (("--clients", "2000"), 2, "1438 examples cannot be split into 2000 partitions"),
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
        (("--clients", "10", "--set", "clients_per_round=11"), 2, "clients_per_round must be at most --clients (10)"),
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
        (("--clients", "10", "--fraction", "0.01"), 2, "fraction=0.01 of 10 clients is none. Set it to at least 0.1"),
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
        (("--clients", "4", "--set", "model=cnn", "--set", "engine=vectorized"), 2, "layer conv_1 (Conv2D)"),
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
        (("--clients", "4", "--set", "engine=fastest"), 2, "engine: "),
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    ],
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
)
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
def test_what_cannot_be_simulated_is_said_in_one_line_and_leaves_no_run(tmp_path: Path, arguments, code, words):
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    done = simulate(*arguments, "--rounds", "1", "--out", str(tmp_path / "run"))
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    assert done.returncode == code
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    assert words in done.stderr
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    assert done.stderr.startswith("error: ")
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    assert done.stderr.count("\n") == 1
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    assert not (tmp_path / "run").exists()
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/

ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/

ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
def test_flower_simulation_runs_this_very_app(tmp_path: Path):
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    out = tmp_path / "run"
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    done = command(
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
        "fl_simulation.command", "--app", str(ROOT), "--num-supernodes", "30",
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
        "--run-config", f"rounds=2 fraction=0.5 tensorboard=false out='{out}'",
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    )  # fmt: skip
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    assert done.returncode == 0, done.stderr
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    assert [(event["cohort"], event["replies"]) for event in Run.open(out).rounds()] == [(15, 15), (15, 15)]
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/

ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/

ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
def test_flower_simulation_runs_a_foreign_app_with_its_own_clients(tmp_path: Path):
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    (tmp_path / "pyproject.toml").write_text(
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
        textwrap.dedent(
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
            """
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
            [tool.flwr.app.components]
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
            serverapp = "foreign:server"
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
            clientapp = "foreign:client"
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
            [tool.flwr.app.config]
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
            start = 1.0
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
            """
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
        )
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    )
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    (tmp_path / "foreign.py").write_text(
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
        textwrap.dedent(
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
            """
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
            import numpy as np
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
            from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
            from flwr.clientapp import ClientApp
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
            from flwr.serverapp import ServerApp
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
            from flwr.serverapp.strategy import FedAvg
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/

ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
            client, server = ClientApp(), ServerApp()
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/

ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
            @client.train()
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
            def train(message, context):
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
                (w,) = message.content["arrays"].to_numpy_ndarrays()
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
                w = w + context.node_config["partition-id"]
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
                content = {"arrays": ArrayRecord([w]), "metrics": MetricRecord({"num-examples": 1})}
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
                return Message(RecordDict(content), reply_to=message)
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/

ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
            @server.main()
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
            def main(grid, context):
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
                start = ArrayRecord([np.full(2, context.run_config["start"], np.float32)])
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
                result = FedAvg(fraction_evaluate=0.0).start(grid, start, num_rounds=2)
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
                print("result", result.arrays.to_numpy_ndarrays()[0].tolist())
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
            """
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
        )
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    )
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    done = command(
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
        "fl_simulation.command", "--app", str(tmp_path), "--num-supernodes", "3", "--run-config", "start=2.5"
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    )
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    assert done.returncode == 0, done.stderr
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    assert "result [4.5, 4.5]" in done.stdout
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/

ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/

ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
def test_a_folder_that_is_no_app_is_refused(tmp_path: Path):
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    done = command("fl_simulation.command", "--app", str(tmp_path), "--num-supernodes", "3")
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    assert done.returncode == 2
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    assert "is no Flower app" in done.stderr
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    with pytest.raises(SettingsError, match="is no Flower app"):
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
        read_app(tmp_path, "")
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/

ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/

ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
@pytest.mark.parametrize(
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    ("config", "words"),
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    [
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
        ("clients_per_round=5", "clients_per_round must be at most --num-supernodes (3); got 5"),
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
        ("fraction=0.1", "fraction=0.1 of 3 clients is none"),
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
        ("rounds=none", "rounds: "),
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    ],
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
)
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
def test_flower_simulation_refuses_cohorts_that_cannot_be_drawn_in_one_line(tmp_path: Path, config: str, words: str):
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    out = tmp_path / "run"
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    done = command(
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
        "fl_simulation.command", "--app", str(ROOT), "--num-supernodes", "3", "--run-config", f"{config} out='{out}'"
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    )
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    assert done.returncode == 2
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    assert done.stderr.startswith("error: ")
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    assert words in done.stderr
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    assert done.stderr.count("\n") == 1
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    assert not out.exists()
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/

ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/

ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
def test_ray_is_asked_for_by_name_where_it_is_missing():
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    pytest.importorskip("flwr")
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    try:
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
        import ray  # noqa: F401
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    except ImportError:
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
        done = command("fl_simulation.command", "--app", str(ROOT), "--num-supernodes", "3", "--backend", "ray")
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
        assert done.returncode == 2
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
        assert "pip install 'flwr[simulation]" in done.stderr
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/

ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/

ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
def test_a_run_config_is_read_as_flower_reads_it():
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    assert parsed("rounds=5 task='my task' mu=0.5 plot=false model=cnn") == {
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
        "rounds": 5,
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
        "task": "my task",
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
        "mu": 0.5,
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
        "plot": False,
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
        "model": "cnn",
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    }
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
    with pytest.raises(SettingsError, match="key=value"):
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
        parsed("rounds 5")
ssert "pip install 'flwr[simulation]" in done.stderrs/pip install 'flwr[simulation]/pip install 'parterre[ray]'/
