"""A task of a person's own is tried before anything starts: what is wrong with it names the line in their file."""

import pytest

from fl_common.errors import TaskError
from fl_common.processes.forking import ForkServer
from fl_common.settings.schema import Settings
from parterre.trial import Trial, attempt

MODEL = """
import keras
from keras import {name}

def build_model():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense({units})])
    model.compile("sgd", "mse")
    return model

def load_partition(partition, partitions):
    raise OSError("not asked for")
"""
BROKEN = {
    "an import": ({"name": "no_such_module", "units": 2}, "line 3"),
    "a library that refuses what it is given": ({"name": "layers", "units": -2}, "line 6"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_a_task_raises_is_told_with_the_line_in_its_own_file(tmp_path, what):
    values, line = BROKEN[what]
    (tmp_path / "tried_task.py").write_text(MODEL.format(**values))
    with pytest.raises(TaskError, match=rf"tried_task\.py, {line}\)\. Mend it and start again"):
        attempt(Settings(task=str(tmp_path / "tried_task.py")))


def test_a_task_whose_model_can_be_built_passes_without_loading_data(tmp_path):
    (tmp_path / "good_task.py").write_text(MODEL.format(name="layers", units=2))
    attempt(Settings(task=str(tmp_path / "good_task.py")))


@pytest.mark.slow
def test_the_trial_is_made_by_a_process_of_its_own(tmp_path):
    (tmp_path / "tried_task.py").write_text("import no_such_module\n")
    fork_server = ForkServer(())
    trial = Trial(fork_server, Settings(task=str(tmp_path / "tried_task.py")), tmp_path)
    with pytest.raises(TaskError, match=r"^task .*tried_task\.py does not import: ModuleNotFoundError"):
        trial.wait()
    (tmp_path / "tried_task.py").write_text(MODEL.format(name="layers", units=2))
    Trial(fork_server, Settings(task=str(tmp_path / "tried_task.py")), tmp_path).wait()
    assert not (tmp_path / "trial.log").exists()
