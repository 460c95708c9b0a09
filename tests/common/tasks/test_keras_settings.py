"""What a task's file sets for all of Keras at its top holds for its model, and for no other task's."""

import numpy as np
import pytest

from fl_client.training.trainer import LocalTrainer
from fl_common.models.frameworks import keras
from fl_common.models.weights import weights_of
from fl_common.settings.schema import Settings
from fl_common.tasks.task import build, resolve

TASK = """
import keras, numpy as np
{top}

def build_model():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model

def load_partition(partition, partitions):
    x = np.random.default_rng(partition).normal(size=(40, 4)).astype("float32")
    return (x, (x[:, 0] > 0).astype("int64")), None
"""


@pytest.fixture
def resolved(tmp_path):
    def resolve_(name, top):
        (tmp_path / f"{name}.py").write_text(TASK.format(top=top))
        return resolve(Settings(task=str(tmp_path / f"{name}.py")))

    yield resolve_
    keras.utils.clear_session()


def computes_in(model):
    return model.layers[-1].compute_dtype


def test_a_global_policy_is_the_tasks_own_and_lasts(resolved):
    mixed = resolved("mixed_task", 'keras.config.set_dtype_policy("mixed_bfloat16")')
    plain = resolved("plain_task", "")
    again = resolved("mixed_task", "")  # a file is loaded once for a process
    assert [computes_in(build(task, 0)) for task in (mixed, plain, again, plain)] == [
        "bfloat16",
        "float32",
        "bfloat16",
        "float32",
    ]


def test_other_global_settings_last_too(resolved):
    task = resolved("unsafe_task", "keras.config.enable_unsafe_deserialization()")
    build(task, 0)
    assert keras.src.saving.serialization_lib.in_safe_mode() is False
    build(resolved("safe_task", ""), 0)
    assert keras.src.saving.serialization_lib.in_safe_mode() is not False


def test_a_task_under_mixed_precision_trains_in_it(resolved):
    task = resolved("half_task", 'keras.config.set_dtype_policy("mixed_float16")')
    trainer = LocalTrainer(task, Settings())
    start = weights_of(trainer.model)
    result = trainer.train(start, task.load_partition(0, 1)[0], round=1, client=0)
    assert isinstance(trainer.model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert {array.dtype for array in result.arrays.values()} == {np.dtype("float32")}
    assert any((result.arrays[name] != start[name]).any() for name in start)
