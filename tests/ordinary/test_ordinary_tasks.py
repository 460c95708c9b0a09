"""What ordinary people do: ten small tasks, each as a deployed federation, as a simulated one, and in every export."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from fl_cli.main import register
from fl_common.errors import ExportError
from fl_common.models.frameworks import keras, tf
from fl_server.store.runs import Run
from tests.integration.conftest import events, fl

TASKS = sorted((Path(__file__).parent / "tasks").glob("*.py"))
SMALL = ("--clients", "2", "--rounds", "1", "--seed", "3", "--set", "batch_size=8", "--set", "tensorboard=false")
WITHOUT_TFLITE = {"text": "StringSplitV2"}  # an operation that TFLite does not have
CLOSE = {"mixed_precision": 1e-2}


def test_there_are_ten_of_them() -> None:
    assert len(TASKS) == 10
    assert WITHOUT_TFLITE.keys() <= {task.stem for task in TASKS}


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS, ids=lambda path: path.stem)
def test_an_ordinary_task_runs_deployed_and_simulated_and_is_exported(tmp_path: Path, task: Path) -> None:
    up, simulated = tmp_path / "up", tmp_path / "simulated"
    done = fl("up", "--task", str(task), *SMALL, "--set", "plot=false", "--out", str(up))
    assert done.returncode == 0, done.stdout + done.stderr
    invoked("simulate", "--task", str(task), *SMALL, "--out", str(simulated))
    for run in (up, simulated):
        (end,) = events(run, "finished")
        assert np.isfinite(end["loss"])
        assert end.get("model_error") is None
        assert events(run, "rejected") == []
        assert [event["replies"] for event in events(run, "round")] == [2]
    assert (simulated / "plot.png").is_file()
    agree(weights(up), weights(simulated), CLOSE.get(task.stem, 1e-5))
    export(up, task.stem)


def export(run: Path, name: str) -> None:
    for format_ in ("keras", "weights", "savedmodel"):
        invoked("export", str(run), "--format", format_)
    assert zipfile.is_zipfile(run / "weights.npz")
    assert keras.saving.load_model(run / "model.keras", compile=False).count_params() > 0
    assert callable(tf.saved_model.load(str(run / "savedmodel")).serve)
    if name in WITHOUT_TFLITE:
        with pytest.raises(ExportError, match=rf"\(Flex\).*{WITHOUT_TFLITE[name]}"):
            invoked("export", str(run), "--format", "tflite")
        assert not (run / "model.tflite").exists()
    else:
        invoked("export", str(run), "--format", "tflite")
        assert (run / "model.tflite").read_bytes()[4:8] == b"TFL3"


def invoked(*arguments: str) -> Result:
    """Run a command in this process, where TensorFlow is imported already."""
    result = CliRunner().invoke(register(("simulate", "export")), [*arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def weights(run: Path) -> dict[str, Any]:
    checkpoint = Run.open(run).latest()
    assert checkpoint is not None
    return checkpoint.arrays


def agree(one: dict[str, Any], other: dict[str, Any], close: float) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_allclose(array, other[name], rtol=0, atol=close, err_msg=name)
