"""The base of robust strategies: FedAvg whose replies are held side by side, each once, and combined by a rule.

What a rule decides is in strategies/rules; here is what all of them share: holding, counting, and what is not theirs.
"""

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from logging import getLogger
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fl_common.errors import StrategyError, TooFewReplies
from fl_common.messages.arrays import Arrays, Signature, encode, is_float
from fl_common.messages.group_reply import members_of
from strategies.fedavg import UNASKED, FedAvg
from strategies.replies import Reply, mean_metrics
from strategies.rules.ordering import median

log = getLogger(__name__)


class Robust(FedAvg):
    """Subclasses change `combine`, and `fewest` where a rule needs a number of replies.

    Replies are held as views over their messages' bytes, and combined in the order of their slots. Integers stay those
    of the current model. Floats that no gradient moves, such as BatchNorm's statistics, have a scale of their own, so
    they count in no distance: they take the coordinate-wise median of all replies.
    """

    @abstractmethod
    def combine(self, current: Arrays, replies: Sequence[Reply], names: Sequence[str]) -> Arrays:
        """Return the next values of the variables called `names`, floats all; `current` is this round's model."""

    def fewest(self, replies: int) -> int:
        """Return how many replies the rule needs, where there are `replies`."""
        return 1

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Return FedAvg's messages.

        Where they are too few for the rule, if all were answered, raises StrategyError, or TooFewReplies when a round
        is repeated with the clients that are left.
        """
        messages = super().configure_train(server_round, arrays, config, grid)
        if shortage := self._shortage(len(messages)):
            kind = TooFewReplies if self.attempt else StrategyError
            raise kind(
                f"{shortage}, and only {len(messages)} clients are asked. "
                "Ask more (fraction, clients_per_round), or have it bear fewer with --set f=..."
            )
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Hold the replies, then combine them; without a good one both results are None.

        Raises TooFewReplies where the rule needs more. The strategy's state is as it was then, as it is after an
        exception of the iterator.
        """
        held = self._held(replies)
        if not held:
            return None, None
        if shortage := self._shortage(len(held)):
            raise TooFewReplies(f"{shortage}; {len(held)} came")
        metrics = mean_metrics((reply.weight, reply.metrics) for reply in held)
        return encode(self.step(self._current, self._combined(held))), metrics

    def _held(self, messages: Iterable[Message]) -> list[Reply]:
        if not self._current:
            raise StrategyError("aggregate_train needs the round's model; call configure_train first")
        signature = Signature.of(self._current)
        held = []
        for message in messages:
            if members_of(message):
                raise StrategyError(f"{type(self).__name__} needs each client's reply; got the mean of many")
            reply = self._admit(message, signature)
            if reply is not None:
                held.append(reply)
        return sorted(held, key=lambda reply: (self._slots.get(reply.node, UNASKED), reply.node))

    def _combined(self, held: Sequence[Reply]) -> Arrays:
        floats = [name for name, array in self._current.items() if is_float(array.dtype)]
        moved = [name for name in floats if name not in self.non_trainable]
        fixed = [name for name in floats if name in self.non_trainable]
        result = median(arrays_of(held), fixed) if fixed else {}
        if moved:
            result |= self.combine(self._current, held, moved)
        return {name: result.get(name, array) for name, array in self._current.items()}

    def _shortage(self, replies: int) -> str:
        fewest = self.fewest(replies)
        return f"{type(self).__name__} needs at least {fewest} replies in a round" if replies < fewest else ""


class Bearing(Robust):
    """A rule that is told how many hostile replies it is to bear.

    f: that number; below 1, a share of the round's replies, rounded up.
    """

    def __init__(self, *, f: float = 0.2, **fedavg: Any) -> None:
        super().__init__(**fedavg)
        if isinstance(f, bool) or not isinstance(f, int | float) or not f >= 0 or (f >= 1 and f != int(f)):
            raise StrategyError(f"f must be a share in [0, 1) or a whole number of replies; got {f!r}")
        self.f = f

    def borne(self, replies: int) -> int:
        """Return how many hostile replies of `replies` are borne."""
        return int(self.f) if self.f >= 1 else math.ceil(self.f * replies - 1e-9)

    def _shortage(self, replies: int) -> str:
        shortage = super()._shortage(replies)
        return f"{shortage} to bear f={self.borne(replies)} hostile ones" if shortage else ""


def arrays_of(replies: Sequence[Reply]) -> list[Mapping[str, NDArray[Any]]]:
    """Return the replies' arrays."""
    return [reply.arrays for reply in replies]


def weights_of(replies: Sequence[Reply], *, weighted: bool) -> NDArray[np.float64]:
    """Return the replies' numbers of examples, or ones: what a client says of itself is not to be believed blindly."""
    return np.array([reply.weight if weighted else 1.0 for reply in replies])
