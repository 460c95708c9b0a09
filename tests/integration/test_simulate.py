"""A simulated run and a deployed one of the same seed: one process here, real processes over gRPC there."""

from pathlib import Path

import numpy as np
import pytest

from fl_server.runs import Run
from tests.integration.conftest import fl

RAGGED = Path(__file__).parents[1] / "simulation" / "ragged_task.py"
UNEVEN = ("--set", "partitioning=dirichlet", "--set", "alpha=0.5", "--set", "batch_size=16")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--clients", "3", *UNEVEN),
        pytest.param(("--task", str(RAGGED), "--clients", "6"), marks=pytest.mark.slow),
        pytest.param(("--task", str(RAGGED), "--clients", "6", "--set", "model=norm"), marks=pytest.mark.slow),
    ],
    ids=["digits", "dropout and adam", "batchnorm, dropout and adam"],
)
def test_simulated_and_deployed_runs_end_in_the_same_weights(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    arrays = []
    for command in ("simulate", "up"):
        out = tmp_path / command
        done = fl(command, *arguments, "--rounds", "3", "--seed", "7", "--out", str(out))
        assert done.returncode == 0, done.stderr
        checkpoint = Run.open(out).latest()
        assert checkpoint is not None
        arrays.append(checkpoint.arrays)
    simulated, deployed = arrays
    assert simulated.keys() == deployed.keys()
    for name, array in simulated.items():
        np.testing.assert_allclose(array, deployed[name], rtol=0, atol=1e-5, err_msg=name)
