"""A cohort's local steps as arrays: what every client takes in each step. Between a cohort and its vectorised program.

Clients stand in order of their numbers of steps, most first, so that those who have finished are a tail that is left
out of the next step. A step with fewer examples than the others is padded with the client's own rows.
"""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fl_simulation.engine.work import TrainingCohort


class Steps:
    """rows: of the resident data, int32 [steps, clients, batch]; sizes: true examples, int32 [steps, clients].

    order: the clients' places in the cohort, as they stand here.
    """

    def __init__(self, cohort: TrainingCohort) -> None:
        self.order = np.argsort(-cohort.steps, kind="stable")
        self._counts = cohort.steps[self.order]
        self._examples = cohort.examples[self.order]
        self._starts = cohort.starts[self.order]
        self._batch = min(cohort.batch_size, int(cohort.examples.max()))
        self._step = np.arange(self._counts[0])[:, None]  # [steps, 1]
        self._of_epoch = -(-self._examples // self._batch)  # a client's steps in an epoch, [clients]
        self._within = self._step % self._of_epoch  # a step's number in its epoch, [steps, clients]
        self.rows = cohort.rows[self._indices()]
        self.sizes = self._sizes()

    @property
    def even(self) -> bool:
        """Whether all clients take the same number of steps."""
        return bool(self._counts[0] == self._counts[-1])

    @cached_property
    def fresh(self) -> NDArray[np.bool_]:
        """Whether a client's epoch begins with a step, [steps, clients]."""
        return np.equal(self._within, 0)

    @cached_property
    def active(self) -> NDArray[np.int32]:
        """How many clients take each step, [steps]."""
        return np.array(np.sum(self._counts > self._step, axis=1), np.int32)

    def _indices(self) -> NDArray[np.int64]:
        epoch = np.minimum(self._step // self._of_epoch, self._counts // self._of_epoch - 1)
        first = self._starts + epoch * self._examples
        taken = (self._within * self._batch)[:, :, None] + np.arange(self._batch)
        indices: NDArray[np.int64] = first[:, :, None] + taken % self._examples[:, None]
        return indices

    def _sizes(self) -> NDArray[np.int32]:
        left = np.minimum(self._examples - self._within * self._batch, self._batch)
        return np.where(self._step < self._counts, left, 0).astype(np.int32)
