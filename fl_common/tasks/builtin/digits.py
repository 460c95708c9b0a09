"""The embedded default task: scikit-learn's 1,797 handwritten digits, 8x8 pixels, 10 classes, no download.

Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI repository (1998), test part.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from fl_common.data.examples import Examples, take
from fl_common.errors import DataError
from fl_common.settings.schema import Settings
from fl_common.tasks.builtin import models
from fl_common.tasks.builtin.shared import shared_task
from fl_common.tasks.task import Task

TEST_SHARE = 0.2
SHUFFLE_SEED = 1797
FILE = "digits.csv.gz"
IN_IMAGE = Path(sys.prefix) / "share/parterre" / FILE  # container images hold the file, not scikit-learn


def make(settings: Settings) -> Task:
    """Return the task. Its model takes 64 inputs in [0, 1]; the default is mlp."""
    # With 0.1 the mlp is still far from done after ten rounds: a client of four has some 300 digits, 9 steps an epoch.
    name = settings.model or "mlp"
    rate = 0.5 if name == "mlp" else None
    build_model = models.builder(name, (64,), 10, image=(8, 8, 1), learning_rate=rate)
    return shared_task("digits", build_model, lambda: load()[0], lambda: load()[1], settings)


def load() -> tuple[Examples, Examples]:
    """Return (train, test): x float32 [n, 64] in [0, 1], y int64 [n]. The same 20 % are the test set for ever."""
    table = np.loadtxt(_path(), delimiter=",", dtype=np.float32)
    examples: Examples = (table[:, :-1] / np.float32(16), table[:, -1].astype(np.int64))
    order = np.random.default_rng(SHUFFLE_SEED).permutation(len(table))
    train = len(table) - round(len(table) * TEST_SHARE)
    return take(examples, order[:train]), take(examples, order[train:])


def _path() -> Path:
    # The file is read where scikit-learn keeps it: importing scikit-learn costs 1.5 s and 100 MB in every client.
    spec = find_spec("sklearn")
    path = Path(spec.origin).parent / "datasets/data" / FILE if spec and spec.origin else IN_IMAGE
    if not path.exists():
        raise DataError("the digits come with scikit-learn, which must be installed; looked for {path}.", path=path)
    return path
