"""A run of somebody else, with its copied task, from a terminal: nothing of it runs without --trust."""

from pathlib import Path

import pytest

from tests.integration.conftest import fl

TASK = """
from pathlib import Path
import numpy as np
from fl_common.models.frameworks import keras

Path({marker!r}).touch()

def build_model():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model

def load_partition(partition, partitions):
    x = np.random.default_rng(partition).random((8, 4), np.float32)
    return (x[:6], np.zeros(6, np.int64)), (x[6:], np.zeros(2, np.int64))
"""


@pytest.mark.slow
def test_a_run_of_somebody_else_is_resumed_with_trust_only(tmp_path: Path) -> None:
    marker, task, run = tmp_path / "ran", tmp_path / "my_task.py", tmp_path / "run"
    task.write_text(TASK.format(marker=str(marker)))
    theirs, ours = ({"FL_RUN_KEY": str(tmp_path / f"{who}.key")} for who in ("theirs", "ours"))
    quick = ("--set", "plot=false", "--set", "tensorboard=false")
    made = fl("simulate", "--task", str(task), "--clients", "2", "--rounds", "1", "--out", str(run), *quick, **theirs)
    assert made.returncode == 0, made.stderr
    marker.unlink()
    for command in (("resume", "--rounds", "2"), ("export", "--format", "savedmodel")):
        refused = fl(command[0], str(run), *command[1:], **ours)
        assert refused.returncode == 1
        assert "was not made by this user" in refused.stderr
        assert "Traceback" not in refused.stderr
    assert not marker.exists()
    assert fl("runs", "show", str(run), **ours).returncode == 0
    assert fl("export", str(run), "--format", "weights", **ours).returncode == 0
    assert not marker.exists()
    trusted = fl("resume", str(run), "--rounds", "2", "--trust", **ours)
    assert trusted.returncode == 0, trusted.stderr
    assert marker.exists()
    assert fl("resume", str(run), "--rounds", "3", **ours).returncode == 0  # it is ours now
