"""The files of a task go to the server with it: what it imports by itself, what is named, and nothing else."""

import json
import subprocess
import sys
import zipfile
from io import BytesIO

import pytest

from fl_common.errors import StrategyError, TaskError
from fl_common.settings.schema import Settings
from fl_server.superlink.execution import app_bundle, task_files
from fl_server.superlink.execution.app_installation import install

TASK = """
import json, random, {absent}
from pathlib import Path
import helper
from shop.models import build_model
import importlib

WORDS = json.loads((Path(__file__).parent / "words.json").read_text())

def load_partition(partition, partitions):
    late = importlib.import_module("late")
    return ([[helper.SCALE]], [late.LABEL]), None

def load_test():
    return open(Path(__file__).parent / "lost.csv").read()
"""
FOLDER = {
    "my-task.v2.py": TASK.format(absent="os"),
    "helper.py": "from shop.deep.er import SCALE\n",
    "late.py": "LABEL = 1\n",
    "shop/__init__.py": "",
    "shop/models.py": "from . import colours\nfrom .colours import RED\nbuild_model = print\n",
    "shop/colours.py": "RED = 1\n",
    "shop/unused.py": "raise SystemExit\n",
    "shop/deep/er.py": "SCALE = 3\n",
    "random.py": "raise SystemExit  # Python's own goes first\n",
    "numpy.py": "raise SystemExit\n",
    "other.py": "raise SystemExit\n",
    "words.json": "[]",
    "patients.csv": "name\n",
}
IMPORTED = {"helper.py", "late.py", "shop/__init__.py", "shop/models.py", "shop/colours.py", "shop/deep/er.py"}


@pytest.fixture
def folder(tmp_path):
    for name, text in FOLDER.items():
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "site"


def test_the_modules_that_a_task_imports_from_its_folder_travel_and_nothing_else(folder):
    found = task_files.of(str(folder / "my-task.v2.py"))
    assert found.task == "my-task.v2.py"
    assert set(found.files) == {"my-task.v2.py"} | IMPORTED
    assert str(found).startswith("my-task.v2.py, helper.py, ")


def test_a_task_in_a_package_brings_its_package(folder):
    found = task_files.of(str(folder / "shop" / "models.py"))
    assert found.task == "shop/models.py"
    assert set(found.files) == {"shop/__init__.py", "shop/models.py", "shop/colours.py"}


@pytest.mark.parametrize(
    ("include", "files"),
    {
        "a file": ("words.json", {"words.json"}),
        "a folder": ("shop", {"shop/unused.py"}),
        "a pattern": ("*ther.py", {"other.py"}),
    }.values(),
)
def test_what_is_named_travels_too(folder, include, files):
    (folder / "shop" / "__pycache__").mkdir()
    (folder / "shop" / "__pycache__" / "models.pyc").touch()
    found = task_files.of(str(folder / "my-task.v2.py"), [include])
    assert set(found.files) - {"my-task.v2.py"} - IMPORTED == files


@pytest.mark.parametrize("name", ["patients.csv", "large.json", "large_module.py", "picture.PNG", "no_suffix"])
def test_what_looks_like_data_or_is_large_travels_only_when_that_is_asked_for_twice(folder, name):
    (folder / name).write_bytes(b"#" * (1_100_000 if "large" in name else 10))
    (folder / "task.py").write_text("import large_module\n" if "module" in name else "")
    include = [] if "module" in name else [name]
    with pytest.raises(TaskError, match=f"{name} .* would go to the server. Add --force"):
        task_files.of(str(folder / "task.py"), include)
    assert name in task_files.of(str(folder / "task.py"), include, force=True).files


@pytest.mark.parametrize(
    ("include", "words"),
    {
        "a file that is not there": ("nothing.json", "--include nothing.json: there is no such file"),
        "one outside": ("../secrets.json", "is not below .*, the task's folder"),
        "a name that Flower cannot list": ("a,b.json", "comma"),
        "more than a run carries": ("huge.json", "carries at most"),
    }.values(),
)
def test_what_cannot_travel_is_said(folder, include, words):
    (folder / "../secrets.json").touch()
    (folder / "a,b.json").touch()
    with (folder / "huge.json").open("wb") as file:
        file.truncate(9 << 20)
    with pytest.raises(TaskError, match=words):
        task_files.of(str(folder / "my-task.v2.py"), [include], force=True)


def test_a_strategy_and_what_it_imports_travel_beside_the_task(folder, tmp_path):
    (folder / "plan.py").write_text("from late import LABEL\nclass Mine: ...\n")
    settings = Settings(task=str(folder / "my-task.v2.py"), strategy=f"{folder}/plan.py:Mine")
    task, own = task_files.of(settings.task, ["words.json"]), task_files.of(str(folder / "plan.py"))
    content, _, told = app_bundle.build(settings, task, own)
    names = zipfile.ZipFile(BytesIO(content)).namelist()
    assert told.strategy == "fl_user_task/plan.py:Mine"
    assert {"fl_user_task/plan.py", "fl_user_task/late.py", "fl_user_task/my-task.v2.py"} <= set(names)
    assert len(names) == len(set(names))
    (tmp_path / "late.py").write_text("LABEL = 2\n")
    with pytest.raises(StrategyError, match="have one name"):
        app_bundle.build(settings, task, task_files.of(str(tmp_path / "late.py")))


def test_a_task_that_is_no_python_is_said_before_anything_starts(folder):
    (folder / "helper.py").write_text("def (\n")
    with pytest.raises(TaskError, match=r"helper.py is not Python \(line 1: "):
        task_files.of(str(folder / "my-task.v2.py"))


THERE = """
import json, sys
from fl_common.errors import TaskError
from fl_common.settings.schema import Settings
from fl_common.tasks.task import resolve
said = []
try:
    task = resolve(Settings(task=sys.argv[1]))
    said += [str(task.load_partition(0, 1)[0])]
    task.load_test()
except TaskError as error:
    said += [str(error)]
print(json.dumps(said))
"""


@pytest.mark.parametrize(
    ("absent", "include", "said"),
    {
        "all is there": ("os", ["words.json"], ["(array([[3]]), array([1]))", "--include lost.csv"]),
        "a file read at import": ("os", [], ["words.json"]),
        "a module that no statement imports": ("nowhere", ["words.json"], ["--include nowhere.py"]),
    }.values(),
)
def test_a_task_works_at_the_server_as_at_home_and_says_what_stayed_behind(
    folder, tmp_path, monkeypatch, absent, include, said
):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flower"))
    (folder / "my-task.v2.py").write_text(TASK.format(absent=absent))
    files = task_files.of(str(folder / "my-task.v2.py"), include)
    content, _, settings = app_bundle.build(Settings(), files)
    assert settings.task == "fl_user_task/my-task.v2.py"
    app = install(content)
    for path in folder.rglob("*"):
        path.rename(path.with_suffix(".gone")) if path.is_file() else None
    done = subprocess.run(
        [sys.executable, "-P", "-c", THERE, settings.task], env={"PYTHONPATH": str(app)}, cwd=tmp_path,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    heard = json.loads(done.stdout)
    assert len(heard) == len(said)
    assert all(words in text for words, text in zip(said, heard, strict=True))


@pytest.fixture
def unpacked(tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flower"))
    content, _, _ = app_bundle.build(Settings())
    return content, install(content)


def damaged(kind, app, content):
    victim = app / "fl_server" / "app.py"
    if kind == "a file is gone":
        victim.unlink()
    elif kind == "a file is cut off":
        victim.write_bytes(victim.read_bytes()[:100])
    elif kind == "nothing is there":
        for path in sorted(app.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    else:
        victim.unlink()
        victim.mkdir()


@pytest.mark.parametrize(
    "kind", ["a file is gone", "a file is cut off", "nothing is there", "a folder is in its place"]
)
def test_an_app_that_was_left_half_unpacked_is_unpacked_anew(unpacked, kind):
    content, app = unpacked
    damaged(kind, app, content)
    assert install(content) == app
    with zipfile.ZipFile(BytesIO(content)) as archive:
        assert all((app / name).read_bytes() == archive.read(name) for name in archive.namelist() if "info" not in name)
    assert [path.name for path in app.parent.iterdir()] == [app.name]


def test_an_app_that_is_whole_is_left_as_it_is(unpacked):
    content, app = unpacked
    before = (app / "fl_server" / "app.py").stat().st_ino
    assert install(content) == app
    assert (app / "fl_server" / "app.py").stat().st_ino == before
