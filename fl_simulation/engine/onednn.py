"""TensorFlow as a simulation wants it: with oneDNN, whose products of many small matrices are four times faster.

A deployed client has one model and leaves it off. The two round differently, which a few models blow up: those are
simulated without it, too. Whether it is on is settled when TensorFlow is first used, so the process begins again.
"""

import gc
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fl_common.processes.streams import without_stderr
from fl_common.settings.schema import Settings

SWITCH_SECONDS = 5e-4  # a worker that comes back from TensorFlow waits so long for a thread that runs Python
ONEDNN = "TF_ENABLE_ONEDNN_OPTS"


@dataclass(frozen=True)
class TensorFlow:
    """TensorFlow in this process. `chosen` says that oneDNN was put on here, and by nobody else."""

    chosen: bool

    @classmethod
    def imported(cls) -> "TensorFlow":
        """Import TensorFlow with oneDNN, before anything else does; the environment may say otherwise."""
        chosen = ONEDNN not in os.environ and "tensorflow" not in sys.modules
        os.environ.setdefault(ONEDNN, "1")
        with without_stderr():  # it announces oneDNN there, twice, whatever the level of its log
            import fl_common.models.frameworks  # noqa: F401
        return cls(chosen)

    def share_cores(self, settings: Settings) -> None:
        """Give each operation of TensorFlow, which must not be in use yet, one worker's share of the cores.

        A client's steps are too small to be divided over threads: two clients side by side, each on one core, are
        trained in half the time.
        """
        from fl_common.models.frameworks import tf
        from fl_simulation.engine.workers import cores

        cohort = settings.clients_per_round or round(settings.fraction * settings.partitions)
        workers = min(settings.workers or cores(), max(1, cohort) if settings.partitions else cores())
        sys.setswitchinterval(SWITCH_SECONDS)
        with suppress(RuntimeError):  # TensorFlow is in use already, in a process that is not ours
            tf.config.threading.set_intra_op_parallelism_threads(max(1, cores() // workers))

    def suit(self, model: Any) -> None:
        """Begin this process again, without oneDNN, where the model would show by how much the two round differently.

        To be called before anything is written or shown. Returns where there is nothing to do.
        """
        from fl_simulation.engine.ways.choice import shows_rounding

        if self.chosen and shows_rounding(model):
            sys.stdout.flush()
            sys.stderr.flush()
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, ONEDNN: "0"})  # noqa: S606


def settled() -> None:
    """Let Python's cycle collector leave alone what there is now: models, programs, data. They stay to the end."""
    gc.collect()
    gc.freeze()
