"""The resident data: the same examples as a task's partitions, in their own dtype, held once."""

from dataclasses import replace

import numpy as np
import pytest

from fl_client.training.trainer import LocalTrainer
from fl_common.settings.schema import Settings
from fl_common.tasks.task import resolve
from fl_simulation.engine.data.pool import TRAIN, VALIDATION, OwnPool, SharedPool, pick, pool_of

SETTINGS = Settings(task="digits", partitioning="dirichlet", alpha=0.3, seed=4)


@pytest.fixture(scope="module")
def trainer():
    return LocalTrainer(resolve(SETTINGS), SETTINGS)


@pytest.mark.parametrize("own", [False, True])
def test_a_clients_rows_are_its_partition(trainer, own):
    task = replace(trainer.task, share=None) if own else trainer.task
    pool = pool_of(task, trainer, 9, limit=1e9)
    assert isinstance(pool, OwnPool if own else SharedPool)
    assert pool.wrong([3, 7]) == {}
    for which in (TRAIN, VALIDATION):
        tensors, rows = pool.part([7, 3], which)
        for partition, mine in zip((7, 3), rows, strict=True):
            x, y = pick(tensors, mine)
            expected = trainer.task.load_partition(partition, 9)[which]
            np.testing.assert_array_equal(x, expected[0])
            np.testing.assert_array_equal(y, expected[1])


def test_pictures_stay_bytes(trainer):
    pictures = np.zeros((20, 64), np.uint8)
    task = replace(
        trainer.task, share=None, load_partition=lambda *_: ((pictures, np.zeros(20, int)), (pictures[:0],) * 2)
    )
    tensors, _ = pool_of(task, trainer, 2, limit=1e9).part([0, 1], TRAIN)
    assert tensors[0].dtype == "uint8"
    assert tensors[0].shape == (40, 64)


def test_partitions_beyond_the_limit_are_loaded_again(trainer):
    loaded = []

    def load(partition, partitions):
        loaded.append(partition)
        return trainer.task.load_partition(partition, partitions)

    pool = pool_of(replace(trainer.task, share=None, load_partition=load), trainer, 9, limit=1)
    for partition in (0, 0, 1, 0):
        pool.wrong([partition])
    assert loaded == [0, 1, 0]


def test_of_many_partitions_the_wrong_ones_are_named(trainer):
    def load(partition, partitions):
        (x, y), held = trainer.task.load_partition(partition, partitions)
        return (x, y + 10 * (partition == 2)), (held[0][:, 1:] if partition == 3 else held[0], held[1])

    pool = pool_of(replace(trainer.task, share=None, load_partition=load), trainer, 5, limit=1e9)
    wrong = pool.wrong(range(5))
    assert wrong.keys() == {2, 3}
    assert "got labels from 10 to 19" in str(wrong[2])
