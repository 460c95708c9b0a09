"""A task is found, checked, and built into a compiled model; what is wrong with it is told in a sentence."""

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fl_common.errors import DataError, TaskError
from fl_common.models.frameworks import keras
from fl_common.settings.schema import Settings
from fl_common.tasks.builtin import BUILT_IN
from fl_common.tasks.task import Task, build, check_fit, count, resolve

ROOT = Path(__file__).parents[3]
GOOD = """
import keras, numpy as np
def build_model():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    return model
def load_partition(partition, partitions):
    return (np.full((4, 3), partition), np.zeros((4, 2))), (np.zeros((1, 3)), np.zeros((1, 2)))
"""


@pytest.fixture
def written(tmp_path, request):
    """Return a function that writes a task module of a name used in no other test, and returns its settings."""
    stem = f"task_{abs(hash(request.node.nodeid))}"

    def write(source: str) -> Settings:
        (tmp_path / f"{stem}.py").write_text(source)
        return Settings(task=str(tmp_path / f"{stem}.py"))

    return write


def test_a_file_is_a_task(written):
    task = resolve(written(GOOD))
    (x, _), (held, _) = task.load_partition(2, 4)
    assert x.tolist() == [[2, 2, 2]] * 4
    assert count((held, held)) == 1
    assert task.load_test is None
    assert build(task, 0).count_params() == 8


def test_a_module_name_is_a_task_found_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "beds").mkdir()
    (tmp_path / "beds" / "roses.py").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert resolve(Settings(task="beds.roses")).load_partition(1, 2)


def test_a_file_may_import_its_neighbours(written, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "neighbour_of_a_task.py").write_text(GOOD)
    assert resolve(written("from neighbour_of_a_task import *")).load_partition(0, 1)


def test_a_file_of_a_package_imports_relatively_and_from_its_package(tmp_path):
    package = tmp_path / "florist_shop"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "flowers.py").write_text(GOOD)
    (package / "roses.py").write_text("from .flowers import build_model\nfrom florist_shop.flowers import *\n")
    assert resolve(Settings(task=str(package / "roses.py"))).load_partition(1, 2)


@pytest.mark.parametrize("name", ["my-task.v2.py", "queue.py", "sklearn.py", "keras.py", "__main__.py", "test_it.py"])
def test_a_task_may_have_any_files_name_and_hides_no_library(tmp_path, name):
    (tmp_path / name).write_text(GOOD + f"\nkept = {str(tmp_path)!r} in __file__\n")
    before = {each: module for each, module in sys.modules.items() if each in ("queue", "keras", "__main__")}
    assert resolve(Settings(task=str(tmp_path / name))).load_partition(1, 2)
    assert before == {each: sys.modules[each] for each in before}
    assert "site-packages" in importlib.import_module("sklearn").__file__


def test_two_files_of_one_name_are_two_tasks(tmp_path):
    for number in (3, 5):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "twin.py").write_text(
            GOOD.replace("(4, 3)", f"({number}, 3)").replace("(4, 2)", f"({number}, 2)")
        )
    found = [resolve(Settings(task=str(tmp_path / str(number) / "twin.py"))) for number in (3, 5, 3)]
    assert [count(task.load_partition(0, 1)[0]) for task in found] == [3, 5, 3]


def test_settings_are_given_to_a_function_that_names_them(written):
    source = GOOD.replace("partition, partitions", "partition, partitions, settings").replace(
        "partition)", "settings.seed)"
    )
    settings = written(source).model_copy(update={"seed": 9})
    assert resolve(settings).load_partition(0, 1)[0][0][0, 0] == 9


def test_optional_functions_are_taken_where_they_are(written):
    task = resolve(written(GOOD + "def load_test(): return [[1, 2, 3]], [[0, 0]]\ndef callbacks(): return []\n"))
    assert task.callbacks() == []
    x, y = task.load_test()
    assert (x.shape, y.shape) == ((1, 3), (1, 2))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("digit", "Did you mean digits"),
        ("fashion-mnist", "Did you mean fashion_mnist"),
        ("no_such_module.task", "Built in: digits, mnist"),
        ("./nowhere/my_task.py", "there is no file"),
        ("json", "lacks build_model and load_partition"),
    ],
)
def test_a_task_that_is_not_there_is_told(name, words):
    with pytest.raises(TaskError, match=words):
        resolve(Settings(task=name))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("x = 1\n\nraise KeyError('roses')", r"KeyError: 'roses' \(.*\.py, line 3\)"),
        ("import a_library_that_is_not_there", "ModuleNotFoundError: No module named 'a_library_that_is_not_there'"),
        ("def build_model(:\n  pass", r"SyntaxError: .*line 1\)"),
        ("def build_model(): ...", "lacks load_partition"),
        (GOOD.replace("def build_model", "def make_model"), "lacks build_model"),
        ("build_model = load_partition = 3", "lacks build_model and load_partition"),
    ],
)
def test_a_module_that_is_no_task_is_told(written, source, words):
    with pytest.raises(TaskError, match=words):
        resolve(written(source))


@pytest.mark.parametrize("name", ["./my_task.py", "os", "/tmp/x.py"])
def test_a_resident_client_runs_no_code_that_a_server_names(name):
    with pytest.raises(TaskError, match=r"this client has no task .* Start it with --task"):
        resolve(Settings(task=name), trusted=False)
    assert resolve(Settings(), trusted=False).name == "digits"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return keras.Sequential([keras.layers.Dense(2)])", "is not compiled"),
        ("return 'a model'", "must return a compiled keras.Model; got str"),
    ],
)
def test_what_is_no_compiled_model_is_told(written, body, words):
    task = resolve(written(GOOD.replace("def build_model():", f"def build_model():\n    {body}")))
    with pytest.raises(TaskError, match=words):
        build(task, 0)


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ("None", r"must return \(x_train, y_train\), \(x_val, y_val\); got NoneType"),
        ("(1, 2, 3)", "must return"),
        ("(np.zeros((4, 3)), np.zeros(4))", "got ndarray"),
        ("(np.zeros((4, 3)), np.zeros(3)), None", "same number of examples"),
        ("(np.zeros((0, 3)), np.zeros(0)), None", "has no training example"),
        ("(3, 4), None", "leading dimension"),
    ],
)
def test_a_partition_of_the_wrong_kind_is_told(written, returned, words):
    task = resolve(written(f"import numpy as np\nbuild_model = print\ndef load_partition(a, b): return {returned}"))
    with pytest.raises(DataError, match=words):
        task.load_partition(0, 1)


def test_one_example_is_enough_and_goes_to_training(written):
    task = resolve(written(GOOD.replace("(4, ", "(1, ").replace("(np.zeros((1, 3)), np.zeros((1, 2)))", "None")))
    train, validation = task.load_partition(0, 1)
    assert (count(train), count(validation)) == (1, 0)
    assert validation[0].shape == (0, 3)


def test_builds_of_one_seed_are_equal_in_names_and_values():
    task = Task("t", lambda: _functional(), lambda a, b: ((), ()))
    first, again, other = build(task, 1), build(task, 1), build(task, 2)
    assert [v.path for v in first.weights] == [v.path for v in again.weights]
    assert all(np.array_equal(a, b) for a, b in zip(first.get_weights(), again.get_weights(), strict=True))
    assert not np.array_equal(first.get_weights()[0], other.get_weights()[0])


def _functional():
    entry = keras.Input((3,))
    model = keras.Model(entry, keras.layers.Dense(2)(keras.layers.Dense(4)(entry)))
    model.compile("sgd", "mse")
    return model


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(2)

    def call(self, x):
        return self.dense(x)


class OwnStep(keras.Model):
    """Trains two parts and cannot be called, as a GAN."""

    def __init__(self):
        super().__init__()
        self.part = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])

    def train_step(self, data):
        return {"loss": 0.0}


@pytest.mark.parametrize(("kind", "variables"), [(Subclassed, 2), (OwnStep, 2)])
def test_a_subclassed_model_is_built_from_the_data(kind, variables):
    def build_model():
        model = kind()
        model.compile("sgd", "mse")
        return model

    examples = (np.zeros((4, 3), "float32"), np.zeros((4, 2), "float32"))
    model = build(Task("t", build_model, lambda a, b: (examples, examples)), 0)
    assert len(model.weights) == variables
    check_fit(model, examples)


def test_a_model_that_fails_on_its_own_data_is_told():
    def build_model():
        model = Subclassed()
        model.compile("sgd", "mse")
        return model

    examples = (np.array([["text"]]), np.zeros((1, 2)))
    with pytest.raises(TaskError, match="cannot be called on the task's own data"):
        build(Task("t", build_model, lambda a, b: (examples, examples)), 0)


def test_the_tutorial_task_learns_from_its_shared_split():
    task = resolve(Settings(task=str(ROOT / "examples" / "my_task.py"), partitioning="dirichlet"))
    parts = [task.load_partition(number, 3) for number in range(3)]
    assert sum(count(train) + count(validation) for train, validation in parts) == 142
    assert count(task.load_test()) == 36
    model = build(task, 0)
    x, y = parts[0][0]
    check_fit(model, (x, y))
    before = model.get_weights()[0].copy()
    assert np.isfinite(model.train_on_batch(x, y)[0])
    assert not np.array_equal(before, model.get_weights()[0])


def test_resolving_a_built_in_task_imports_no_tensorflow():
    code = f"""
import sys
from fl_common.settings.schema import Settings
from fl_common.tasks.task import resolve
for name in {BUILT_IN}:
    resolve(Settings(task=name))
sys.exit(any(name in sys.modules for name in ("tensorflow", "keras", "sklearn", "flwr_datasets")))
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
