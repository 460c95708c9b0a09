"""TensorFlow and Keras, imported without the optional libraries that they try for and this project does not use there.

Keras and TensorFlow import pandas, matplotlib, scikit-learn and SciPy where they are installed, to serve wrappers and
plots; that doubles the time and the memory of a client's start (measured by benchmarks/startup.py). They are hidden
only while the two are imported: afterwards anyone may import them as usual.

Import from here, never from keras or tensorflow directly: `from fl_common.models.frameworks import keras, tf`.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fl_common.errors import SettingsError
from fl_common.processes import environment

OPTIONAL = ("matplotlib", "pandas", "scipy", "sklearn")


@contextmanager
def _hidden(names: tuple[str, ...]) -> Iterator[None]:
    absent = [name for name in names if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in absent:
            sys.modules.pop(name, None)


imported_before = "keras" in sys.modules
os.environ[environment.BACKEND] = environment.TENSORFLOW
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# oneDNN may sum in another order with other threads; a resumed run must end in the same bits.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

with _hidden(OPTIONAL):
    try:
        import keras
    except (ImportError, ValueError) as error:
        raise SettingsError(f"Keras does not import: {error}. Is its file of settings right, keras.json?") from error
    import tensorflow as tf

if keras.backend.backend() != environment.TENSORFLOW:
    raise SettingsError(
        f"Keras was imported with its {keras.backend.backend()} backend before Parterre. Parterre's models run on "
        "TensorFlow: leave KERAS_BACKEND unset, or set it to tensorflow."
    )
if not imported_before:  # a machine's keras.json is no part of the task: with it two clients would train two models
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")

__all__ = ["keras", "tf"]
