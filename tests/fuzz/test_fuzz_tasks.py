"""Task files of any content: a task that trains, or an error for a person that says what is wrong with the file."""

import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fl_common.errors import DataError, TaskError
from fl_common.settings.schema import Settings
from fl_common.tasks.task import build, resolve
from tests.fuzz import EXAMPLES

FUZZ = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NUMBER = itertools.count()  # modules are kept by name

PARTS = {
    "build_model": [
        "", "build_model = 3", "def build_model(): return None", "def build_model(x): pass", "def build_model(): raise ValueError('no')",
        "import keras\ndef build_model(): return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])",
        "import keras\ndef build_model():\n    m = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])\n    m.compile('sgd', 'mse')\n    return m",
    ],
    "load_partition": [
        "", "load_partition = []", "def load_partition(p): pass", "def load_partition(p, n): return None", "def load_partition(p, n): return 1, 2",
        "def load_partition(p, n): return ([], []), ([], [])", "def load_partition(p, n): return ('ab', 'cd'), None",
        "import numpy as np\ndef load_partition(p, n): return (np.ones((4, 2)), np.ones(3)), None",
        "import numpy as np\ndef load_partition(p, n): return (np.ones((4, 2), object), np.ones(4)), None",
        "import numpy as np\ndef load_partition(p, n): return (np.ones((4, 2)), np.ones(4)), (np.ones((2, 2)), np.ones(2))",
    ],
    "load_test": ["", "load_test = None", "def load_test(): return None", "def load_test(): return 'abc'", "load_test = 5"],
    "callbacks": ["", "callbacks = 7", "def callbacks(settings): return []"],
}  # fmt: skip


@pytest.mark.slow
@FUZZ
@given(st.tuples(*(st.sampled_from(parts) for parts in PARTS.values())))
def test_a_task_of_any_parts_is_one_or_refused_in_words(tmp_path: Path, parts: tuple[str, ...]) -> None:
    _is_a_task_or_refused(tmp_path, "\n".join(parts))


@FUZZ
@given(st.text(max_size=60))
def test_a_file_of_any_text_is_a_task_or_refused_in_words(tmp_path: Path, text: str) -> None:
    _is_a_task_or_refused(tmp_path, f"'''{text}", encode=lambda text: text.encode("utf-8", "surrogatepass"))


@FUZZ
@given(st.binary(max_size=60))
def test_a_file_of_any_bytes_is_a_task_or_refused_in_words(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / f"fuzzed_{next(NUMBER)}.py"
    path.write_bytes(b"\xff" + content)
    try:
        resolve(Settings(task=str(path)))
    except TaskError as error:
        assert str(error)


def _is_a_task_or_refused(directory: Path, text: str, encode=str.encode) -> None:  # type: ignore[no-untyped-def]
    path = directory / f"fuzzed_{next(NUMBER)}.py"
    path.write_bytes(encode(text))
    try:
        task = resolve(Settings(task=str(path)))
    except TaskError as error:
        assert path.stem in str(error)
        return
    try:
        train, validation = task.load_partition(0, 2)
        if task.load_test is not None:
            task.load_test()
    except (TaskError, DataError) as error:
        assert str(error)
        return
    except TypeError as error:  # the file's own function takes other arguments: its own exception passes through
        assert "positional argument" in str(error)
        return
    assert len(train[0]) >= 1
    assert len(validation[0]) >= 0
    try:
        model = build(task, 0)
    except (TaskError, ValueError, TypeError) as error:
        assert str(error)
        return
    assert model.compiled
