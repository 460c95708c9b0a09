"""The built-in tasks and models: the digits are scikit-learn's, the models have the papers' sizes, and they learn."""

import numpy as np
import pytest

from fl_common.errors import DataError, TaskError
from fl_common.settings.schema import Settings
from fl_common.tasks.builtin import digits, images
from fl_common.tasks.task import build, check_fit, count, resolve


@pytest.mark.parametrize(
    ("task", "model", "parameters"),
    [
        ("digits", "", 64 * 10 + 10 + 10 * 10 + 10),
        ("mnist", "mlp", 784 * 10 + 10 + 10 * 10 + 10),
        ("mnist", "2nn", 199_210),
        ("fashion_mnist", "cnn", 1_663_370),
        ("cifar10", "", 2_156_490),
        ("digits", "2nn", 55_210),
        ("digits", "cnn", 188_810),
    ],
)
def test_models_have_the_published_number_of_parameters(task, model, parameters):
    built = build(resolve(Settings(task=task, model=model)), 0)
    assert built.count_params() == parameters
    assert built.output_shape == (None, 10)


def test_an_unknown_model_names_the_nearest():
    with pytest.raises(TaskError, match="Did you mean 2nn"):
        resolve(Settings(model="2n"))
    with pytest.raises(TaskError, match="Known: mlp, 2nn, cnn"):
        resolve(Settings(model="transformer"))


def test_the_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    theirs = {(row.astype(np.float32) / 16).tobytes() + bytes([label]) for row, label in zip(x, y, strict=True)}
    train, test = digits.load()
    ours = [row.tobytes() + bytes([label]) for part in (train, test) for row, label in zip(*part, strict=True)]
    assert len(ours) == len(y)
    assert set(ours) == theirs
    assert (count(train), count(test)) == (1438, 359)
    assert train[0].dtype == np.float32
    assert 0 <= train[0].min() < train[0].max() == 1


@pytest.mark.parametrize("scheme", ["iid", "dirichlet", "shards", "power_law"])
def test_the_partitions_of_a_task_hold_every_training_example_once(scheme):
    task = resolve(Settings(partitioning=scheme, classes_per_client=2))
    parts = [part for number in range(5) for part in task.load_partition(number, 5)]
    rows = np.concatenate([np.column_stack([x, y]) for x, y in parts])
    whole = np.column_stack(digits.load()[0])
    assert np.array_equal(rows[np.lexsort(rows.T)], whole[np.lexsort(whole.T)])


def test_natural_partitioning_of_a_task_without_ids_is_told():
    with pytest.raises(DataError, match="needs a column of ids, which task digits does not have"):
        resolve(Settings(partitioning="natural", id_column="writer"))


@pytest.mark.parametrize(
    ("model", "reached"), [("mlp", 0.88), ("2nn", 0.95), pytest.param("cnn", 0.90, marks=pytest.mark.slow)]
)
def test_a_model_learns_the_digits(model, reached):
    task = resolve(Settings(model=model))
    built = build(task, 1)
    train, _ = task.load_partition(0, 1)
    check_fit(built, train)
    built.fit(*train, epochs=10, batch_size=32, verbose=0)
    assert built.evaluate(*task.load_test(), verbose=0, return_dict=True)["accuracy"] >= reached


def test_a_data_set_that_cannot_be_fetched_asks_for_a_folder(monkeypatch, tmp_path):
    import keras

    def unreachable():
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.datasets.mnist, "load_data", unreachable)
    with pytest.raises(DataError, match=r"mnist could not be fetched: URL fetch failure.*data_dir"):
        images.download("mnist")


def test_a_fetched_data_set_has_flat_integer_labels(monkeypatch):
    import keras

    part = np.zeros((4, 32, 32, 3), np.uint8), np.array([[3], [1], [4], [1]], np.uint8)
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: (part, part))
    train, _ = images.download("cifar10")
    assert train[1].tolist() == [3, 1, 4, 1]
    assert train[1].dtype == np.int64
