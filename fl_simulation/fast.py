"""TensorFlow as a simulation wants it: with oneDNN, whose products of many small matrices are four times faster.

A deployed client has one model and leaves it off. Called before anything imports TensorFlow.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

ONEDNN = "TF_ENABLE_ONEDNN_OPTS"


def import_tensorflow(workers: int = 0) -> None:
    """Import TensorFlow with oneDNN, unless the environment says otherwise, for so many workers; 0: one for each core.

    Each operation gets a worker's share of the cores: a client's steps are too small to be divided over threads.
    """
    os.environ.setdefault(ONEDNN, "1")
    with _without_stderr():  # it announces oneDNN there, twice, whatever the level of its log
        from fl_common.lean import tf
        from fl_simulation.workers import cores
    threads = max(1, cores() // workers) if workers else 1
    with suppress(RuntimeError):  # TensorFlow is in use already, in a process that is not ours
        tf.config.threading.set_intra_op_parallelism_threads(threads)


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
