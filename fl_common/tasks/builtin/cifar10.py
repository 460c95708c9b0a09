"""CIFAR-10: 60,000 colour pictures, 32x32 pixels, 10 classes; from keras.datasets, the binary version, or IDX files.

Source: Krizhevsky, Learning multiple layers of features from tiny images (2009).
"""

from functools import partial
from pathlib import Path

import numpy as np

from fl_common.data.examples import Examples
from fl_common.errors import DataError
from fl_common.settings.schema import Settings
from fl_common.tasks.builtin.images import image_task
from fl_common.tasks.task import Task

RECORD = 1 + 3 * 32 * 32


def make(settings: Settings) -> Task:
    """Return the task. Its model takes uint8 [n, 32, 32, 3]; the default is cnn."""
    folder = Path(settings.data_dir).expanduser() if settings.data_dir else None
    binary = folder is not None and (folder / "test_batch.bin").exists()
    load = partial(read_binary, folder) if binary and folder else None
    return image_task("cifar10", (32, 32, 3), settings, default="cnn", load=load)


def read_binary(folder: Path) -> tuple[Examples, Examples]:
    """Return (train, test) of the binary version: data_batch_*.bin and test_batch.bin."""
    return _batches(sorted(folder.glob("data_batch_*.bin")), folder), _batches([folder / "test_batch.bin"], folder)


def _batches(paths: list[Path], folder: Path) -> Examples:
    """A record is a label and the red, green and blue planes."""
    if not paths:
        raise DataError("data_dir {folder} has no data_batch_1.bin to data_batch_5.bin.", folder=folder)
    contents = [np.fromfile(path, np.uint8) for path in paths]
    for path, content in zip(paths, contents, strict=True):
        if len(content) % RECORD:
            raise DataError(
                f"{{path}} must hold records of {RECORD} bytes; it has {{size}}. Fetch it again.",
                path=path,
                size=len(content),
            )
    records = np.concatenate(contents).reshape(-1, RECORD)
    pictures = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pictures), records[:, 0].astype(np.int64)
