"""What the image tasks share: published uint8 pictures, from keras.datasets or from a folder, split over clients."""

import contextlib
import importlib
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from fl_common.data.cache import locked
from fl_common.data.examples import Examples
from fl_common.errors import DataError, Shown
from fl_common.settings.schema import Settings
from fl_common.tasks.builtin import idx, models
from fl_common.tasks.builtin.shared import shared_task
from fl_common.tasks.task import Task

Loader = Callable[[], tuple[Examples, Examples]]


def image_task(
    name: str, image: tuple[int, int, int], settings: Settings, *, default: str, load: Loader | None = None
) -> Task:
    """Return the task of `name` in keras.datasets. image: (height, width, channels).

    Pictures stay uint8 [n, height, width(, channels)]; the model scales them to [0, 1]. Labels are int64 [n].
    `default` is the model where settings name none; `load` replaces the reading of settings.data_dir as IDX files.
    """
    shape = image[:2] if image[2] == 1 else image
    build_model = models.builder(settings.model or default, shape, 10, image=image, scale=1 / 255)
    read = load or (partial(idx.load, Path(settings.data_dir).expanduser()) if settings.data_dir else None)
    read = read or partial(download, name)
    return shared_task(name, build_model, lambda: read()[0], lambda: read()[1], settings)


def download(name: str) -> tuple[Examples, Examples]:
    """Return (train, test) of keras.datasets, which keeps what it fetched. Raises DataError where it cannot fetch."""
    import fl_common.models.frameworks  # noqa: F401  Keras is imported without its optional libraries

    dataset = importlib.import_module(f"keras.datasets.{name}")
    try:
        # One process fetches; Keras reports its progress on standard output, which belongs to the command.
        with locked("downloads", name), contextlib.redirect_stdout(io.StringIO()):
            train, test = dataset.load_data()
    except Exception as error:  # noqa: BLE001  Keras raises a bare Exception
        raise DataError(
            "{name} could not be fetched: {error}. "
            "Where there is no network, give a folder that holds its files with --set data_dir=... and, to a client of "
            "its own, with --data-dir.",
            name=Shown(name),
            error=error,
        ) from None
    return _labelled(*train), _labelled(*test)


def _labelled(x: np.typing.NDArray[np.uint8], y: np.typing.NDArray[np.uint8]) -> Examples:
    return x, y.reshape(-1).astype(np.int64)
