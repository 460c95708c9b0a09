"""TensorFlow as a simulation wants it: with oneDNN, whose products of many small matrices are four times faster.

A deployed client has one model and leaves it off. Called before anything imports TensorFlow, and before it is used.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from fl_common.settings import Settings

ONEDNN = "TF_ENABLE_ONEDNN_OPTS"


def import_tensorflow() -> None:
    """Import TensorFlow with oneDNN, unless the environment says otherwise."""
    os.environ.setdefault(ONEDNN, "1")
    with _without_stderr():  # it announces oneDNN there, twice, whatever the level of its log
        import fl_common.lean  # noqa: F401


def share_cores(settings: Settings) -> None:
    """Give each operation of TensorFlow, which must not be in use yet, one worker's share of the cores.

    A client's steps are too small to be divided over threads: two clients side by side, each on one core, are trained
    in half the time.
    """
    from fl_common.lean import tf
    from fl_simulation.workers import cores

    cohort = settings.clients_per_round or round(settings.fraction * settings.partitions)
    workers = min(settings.workers or cores(), max(1, cohort) if settings.partitions else cores())
    with suppress(RuntimeError):  # TensorFlow is in use already, in a process that is not ours
        tf.config.threading.set_intra_op_parallelism_threads(max(1, cores() // workers))


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
