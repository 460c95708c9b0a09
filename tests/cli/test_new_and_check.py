"""`fl new` writes tasks that run as they are, and `fl check` finds in seconds what would go wrong with a task."""

import subprocess
import sys
from pathlib import Path

import pytest

from fl_cli.checkup import Checkup, Found
from fl_cli.new import Template, new
from fl_common.errors import TaskError
from fl_common.settings.schema import Settings

HEAD = """
import keras
import numpy as np


def build_model():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
"""
GOOD = """
def load_partition(partition, partitions):
    return (np.ones((50, 4), "float32"), np.zeros(50, "int64")), None
"""


def checked(task: Path | str, **more: str) -> dict[str, Found]:
    return {found.step: found for found in Checkup(Settings(task=str(task)), **more).run()}


def last(found: dict[str, Found]) -> Found:
    return list(found.values())[-1]


def test_a_good_task_passes_every_step() -> None:
    found = checked("digits")
    assert {step for step, each in found.items() if each.exit_code} == set()
    assert list(found) == [
        *("task", "model", "data", "test set", "deployed", "simulated", "evaluation"),
        *("export keras", "export savedmodel", "export tflite"),
    ]
    assert "engine=vectorized" in found["simulated"].text


@pytest.mark.parametrize(
    ("text", "step", "said"),
    [
        ("import nothing_of_the_kind", "task", "nothing_of_the_kind"),
        (HEAD, "task", "lacks load_partition"),
        (HEAD.replace("    model.compile", "    lambda *_, **__: model.compile") + GOOD, "model", "is not compiled"),
        (HEAD + GOOD.replace("(50, 4)", "(50, 5)"), "data", "inputs of shape (4,)"),
        (HEAD + GOOD.replace("np.zeros", "7 + np.zeros"), "data", "7"),
        (
            HEAD + GOOD + "def load_test():\n    return np.ones((5, 9)), np.zeros(5)\n",
            "test set",
            "does not fit the model",
        ),
        (
            HEAD.replace('"sparse_categorical_crossentropy"', "lambda y, p: p[:, 0] / 0") + GOOD,
            "deployed",
            "is not finite",
        ),
        (HEAD + GOOD.replace("    return", "    raise KeyError('gone')\n    return"), "data", "KeyError"),
    ],
)
def test_what_is_wrong_is_found_at_its_step_and_ends_the_check(tmp_path: Path, text: str, step: str, said: str) -> None:
    task = tmp_path / "wrong_task.py"
    task.write_text(text)
    found = last(checked(task))
    assert (found.step, found.exit_code) == (step, 2)
    assert said in found.text


def test_a_clients_own_table_is_tried_in_the_place_of_a_partition(tmp_path: Path) -> None:
    task, table = tmp_path / "own_task.py", tmp_path / "a.csv"
    task.write_text(HEAD + GOOD)
    table.write_text("a,b,c,d,label\n" + "1,2,3,4,0\n5,6,7,8,1\n" * 10)
    assert "a.csv: 16 examples to train, 4 to validate" in checked(task, data=str(table))["data"].text
    table.write_text("a,b,c,label\n" + "1,2,3,0\n5,6,7,1\n" * 10)
    assert last(checked(task, data=str(table))).step == "data"


@pytest.mark.slow
def test_an_export_that_a_model_has_not_is_named_and_fails_no_check(tmp_path: Path) -> None:
    task = tmp_path / "words_task.py"
    words = 'keras.layers.TextVectorization(output_sequence_length=4, vocabulary=["good", "bad"])'
    model = f'[keras.Input((1,), dtype="string"), {words}, keras.layers.Embedding(9, 4), keras.layers.Flatten(), '
    task.write_text(
        HEAD.replace("[keras.Input((4,)), ", model)
        + GOOD.replace('np.ones((50, 4), "float32")', 'np.array([["good"]] * 50)')
    )
    found = checked(task)
    assert {step for step, each in found.items() if each.missing} == {"export tflite"}
    assert {step for step, each in found.items() if each.exit_code} == set()
    assert "StringLower" in found["export tflite"].text


def test_a_new_task_is_written_with_its_test_and_nothing_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    new("mine")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.py", "test_mine.py"]
    assert "{name}" not in (tmp_path / "mine.py").read_text() + (tmp_path / "test_mine.py").read_text()
    (tmp_path / "mine.py").unlink()
    with pytest.raises(TaskError, match=r"test_mine\.py exists, and is not overwritten"):
        new("mine")
    assert not (tmp_path / "mine.py").exists()


@pytest.mark.parametrize(("name", "said"), [("my-task", "letters"), ("random", "hide it"), ("keras", "hide it")])
def test_a_name_that_cannot_be_imported_or_hides_a_module_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TaskError, match=said):
        new(name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_each_template_passes_its_own_test_and_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for template in Template:
        new(f"my_{template}", template)
        found = checked(tmp_path / f"my_{template}.py")
        assert {step: each.text for step, each in found.items() if each.exit_code} == {}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", "."]
    done = subprocess.run([*command, "."], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout
    assert "12 passed" in done.stdout
