"""TensorFlow as a simulation wants it: with oneDNN, whose products of many small matrices are four times faster.

A deployed client has one model and leaves it off. Called before anything imports TensorFlow.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

ONEDNN = "TF_ENABLE_ONEDNN_OPTS"


def import_tensorflow() -> None:
    """Import TensorFlow with oneDNN, unless the environment says otherwise."""
    os.environ.setdefault(ONEDNN, "1")
    with _without_stderr():  # it announces oneDNN there, twice, whatever the level of its log
        import fl_common.lean  # noqa: F401


@contextmanager
def _without_stderr() -> Iterator[None]:
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
