"""FedAvg on Flower's Strategy: whom to ask, and how their replies, streamed one by one, become the next model."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from logging import getLogger
from math import ceil
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from fl_common.errors import RejectedReply, StrategyError
from fl_common.messages.arrays import Arrays, Signature, decode, encode, nbytes
from fl_common.messages.group_reply import members_of
from strategies.replies import MAX_EXAMPLES, Reply, admit, mean_metrics
from strategies.rules.weighted_mean import InOrder, WeightedMean

log = getLogger(__name__)

UNASKED = 2**63  # the slot of a node that was not asked: its reply is folded last
KEPT_BYTES = 64 << 20  # of a larger model the sums, which take twice as much, are not kept between rounds

Draw = Callable[[Sequence[int], int, np.random.Generator], list[int]]


def at_random(nodes: Sequence[int], size: int, rng: np.random.Generator) -> list[int]:
    """Return the places of `size` of the nodes, all equally likely, in ascending order."""
    return [int(place) for place in sorted(rng.choice(len(nodes), size, replace=False))]


class FedAvg(Strategy):
    """Federated averaging, weighted by examples: McMahan et al. 2017 (arXiv:1602.05629), algorithm 1.

    A round wants `clients_per_round` clients, or `fraction_train` of them where that is 0, drawn from (seed, round); it
    asks `over_selection` times as many. Subclasses change `step`, which turns the clients' mean into the next model,
    and `state`.

    The round loop may set, before a round: `eligible`, a function that returns the nodes to draw from in the order of
    their slots (by default all nodes in the order of their ids); `draw`, which says whom of them to train with;
    `attempt`, which draws other clients when a round is repeated; `there`, how many clients there are where not all of
    them are eligible, so that a repeated round is as large as the first. It may set `replies_checked`, where replies
    went through `admit` already, and `non_trainable`, the names of the variables that no gradient moves. It calls
    `join` for a node that is asked in another's place.
    """

    def __init__(
        self,
        *,
        fraction_train: float = 1.0,
        clients_per_round: int = 0,
        fraction_evaluate: float = 1.0,
        over_selection: float = 1.0,
        min_available_nodes: int = 1,
        max_examples: int = MAX_EXAMPLES,
        seed: int = 0,
    ) -> None:
        self.fraction_train = fraction_train
        self.clients_per_round = clients_per_round
        self.fraction_evaluate = fraction_evaluate
        self.over_selection = over_selection
        self.min_available_nodes = min_available_nodes
        self.max_examples = max_examples
        self.seed = seed
        self.eligible: Callable[[], Sequence[int]] | None = None
        self.draw: Draw = at_random
        self.attempt = 0
        self.there = 0
        self.replies_checked = False
        self.non_trainable: frozenset[str] = frozenset()
        self._current: Arrays = {}
        self._mean: WeightedMean | None = None
        self._slots: dict[int, int] = {}
        self._nodes: list[int] = []

    def cohort_size(self, available: int) -> int:
        """Return how many of the available clients a round wants replies of: a share of `there`, where that is set."""
        share = max(1, round(self.fraction_train * max(available, self.there)))
        return min(self.clients_per_round or share, available)

    def evaluators(self, available: int) -> int:
        """Return how many of the available clients an evaluation wants replies of."""
        return max(1, round(self.fraction_evaluate * available)) if self.fraction_evaluate else 0

    def join(self, node: int) -> None:
        """Take note of a node that is asked in the place of another one of this round."""
        self._slots[node] = self._nodes.index(node)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Return one message for each sampled node; all share one content. Never waits.

        Raises StrategyError where fewer than `min_available_nodes` nodes can be asked.
        """
        self._nodes = nodes = self._available(grid)
        self._current = {name: decode(array) for name, array in arrays.items()}
        slots = self.sampled(server_round, nodes)
        self._slots = {nodes[slot]: slot for slot in slots}
        return self._ask(MessageType.TRAIN, list(self._slots), server_round, arrays, config)

    def sampled(self, server_round: int, nodes: Sequence[int]) -> list[int]:
        """Return the places, among `nodes`, of those that a round asks to train."""
        return self._sample(self.draw, nodes, self.cohort_size(len(nodes)), server_round, 0)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Return one message for each node asked to evaluate; none where `fraction_evaluate` is 0."""
        if self.fraction_evaluate == 0:
            return []
        nodes = self._available(grid)
        slots = self._sample(at_random, nodes, self.evaluators(len(nodes)), server_round, 1)
        chosen = [nodes[slot] for slot in slots]
        return self._ask(MessageType.EVALUATE, chosen, server_round, arrays, config)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Fold the replies as the iterator yields them, keeping none; then take the server's step.

        Replies that `admit` rejects are logged and left out; without a good one both results are None. An exception of
        the iterator passes through and leaves the strategy's state as it was: that is how a missed quorum ends a round.
        """
        if not self._current:
            raise StrategyError("aggregate_train needs the round's model; call configure_train first")
        signature = Signature.of(self._current)
        fold = InOrder(self._begin_mean(signature))
        metrics: list[tuple[float, Mapping[str, float]]] = []
        for message in replies:
            reply, members = self._admit(message, signature), members_of(message)
            del message  # else it lives until the next one has come: two replies in memory
            if reply is not None:
                fold.add(self._slots.get(reply.node, UNASKED), reply.arrays, self.weigh(reply))
                metrics += [(each.examples, each.metrics) for each in members] or [(reply.weight, reply.metrics)]
            del reply
        if not metrics:
            return None, None
        result = encode(self.step(self._current, fold.result(self._current)))
        if nbytes(self._current.values()) > KEPT_BYTES:
            self._mean = None
        return result, mean_metrics(metrics)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Return the mean of the metrics, weighted by examples; None where no client had any."""
        admitted = [reply for message in replies if (reply := self._admit(message, None)) is not None]
        metrics = [(reply.weight, reply.metrics) for reply in admitted if reply.weight]
        return mean_metrics(metrics) if metrics else None

    def weigh(self, reply: Reply) -> float:
        """Return the weight of a reply in the mean: here, its number of examples."""
        return reply.weight

    def step(self, current: Arrays, mean: Arrays) -> Arrays:
        """Return the next model from this round's and the clients' mean: here, the mean. `mean` is not to be kept."""
        return mean

    def state(self) -> dict[str, NDArray[Any]]:
        """Return what a resumed run needs to go on bit for bit, beside the model and the settings."""
        return {}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take back what `state` returned. Raises StrategyError where it is another strategy's."""
        if state:
            raise StrategyError(f"{type(self).__name__} has no state to restore; got {', '.join(sorted(state)[:3])}")

    def summary(self) -> None:
        """Log the strategy and its sampling."""
        asked = self.clients_per_round or f"{self.fraction_train:.0%}"
        log.info("%s: trains on %s of the clients, seed %d", type(self).__name__, asked, self.seed)

    def _available(self, grid: Grid) -> list[int]:
        nodes = list(self.eligible()) if self.eligible is not None else sorted(grid.get_node_ids())
        floor = max(1, self.min_available_nodes)
        if len(nodes) < floor:
            raise StrategyError(
                f"a round needs at least {floor} clients; {len(nodes)} can be asked. Start more clients."
            )
        return nodes

    def _sample(self, draw: Draw, nodes: Sequence[int], size: int, server_round: int, phase: int) -> list[int]:
        rng = np.random.default_rng([self.seed, server_round, phase, self.attempt])
        return draw(nodes, min(ceil(round(size * self.over_selection, 9)), len(nodes)), rng)

    def _ask(
        self, kind: str, nodes: list[int], server_round: int, arrays: ArrayRecord, config: ConfigRecord
    ) -> list[Message]:
        config["server-round"] = server_round
        content = RecordDict({"arrays": arrays, "config": config})
        return [Message(content=content, dst_node_id=node, message_type=kind) for node in nodes]

    def _begin_mean(self, signature: Signature) -> WeightedMean:
        if self._mean is None or self._mean.signature != signature:
            self._mean = WeightedMean(self._current)
        self._mean.begin()
        return self._mean

    def _admit(self, message: Message, signature: Signature | None) -> Reply | None:
        try:
            limit = self.max_examples * max(1, len(members_of(message)))
            return admit(message, signature, limit, finite=not self.replies_checked)
        except RejectedReply as error:
            log.warning("reply of node %d left out: %s", message.metadata.src_node_id, error)
            return None
