"""The model that a run begins with where `initial` names a file: weights alone, never code."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fl_common.errors import ParterreError, SettingsError
from fl_common.messages.arrays import Arrays
from fl_common.models.weights import assign, weights_of
from fl_common.settings.schema import Settings

if TYPE_CHECKING:
    from fl_common.models.frameworks import keras

NPZ, HDF5 = (".npz",), (".keras", ".h5")


def initial(settings: Settings, model: "keras.Model") -> Arrays:
    """Return the arrays that a new run begins with: those of `settings.initial`, else the model's own.

    Raises SettingsError where the file cannot be read, or does not fit the model. Files in HDF5 are read only where
    `initial_trusted` says so: its library is in C, and what it may do on a file made for it is not known.
    """
    if settings.initial:
        path = Path(settings.initial).expanduser()
        try:
            _read(path, settings, model)
        except SettingsError:
            raise
        except ParterreError as error:
            raise SettingsError(f"initial={settings.initial} does not fit the task's model: {error}") from error
        except Exception as error:
            raise SettingsError(
                f"initial={settings.initial} cannot be read as weights of the task's model: {type(error).__name__}: "
                f"{str(error).splitlines()[0] if str(error) else ''}"
            ) from error
    return weights_of(model)


def _read(path: Path, settings: Settings, model: "keras.Model") -> None:
    if not path.is_file():
        raise SettingsError(f"initial={settings.initial}: there is no such file where the run's server is.")
    if path.suffix in NPZ:
        with np.load(path, allow_pickle=False) as file:
            assign(model, {name: file[name] for name in file.files})
    elif path.suffix not in HDF5:
        raise SettingsError(
            f"initial={settings.initial}: expected a file of weights: .npz, as `fl export --format weights` writes "
            "it, .keras or .weights.h5."
        )
    elif not settings.initial_trusted:
        raise SettingsError(
            f"initial={settings.initial} is read by the HDF5 library, which is not safe on a file that somebody made "
            "to harm. Where you trust whoever made it, say so with --set initial_trusted=true; or give an .npz file."
        )
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it holds of an optimizer is of another training
            model.load_weights(path)
