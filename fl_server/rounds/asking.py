"""Whom to ask in a phase: a strategy's messages become a cohort, over any Grid and with any strategy."""

import random
from collections.abc import Callable, Iterable
from math import ceil

import numpy as np
from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fl_common.settings.schema import Settings
from fl_server.rounds.clients.roster import Roster
from fl_server.rounds.clients.turns import in_turn
from fl_server.rounds.clock import Clock
from fl_server.rounds.cohort import Cohort, LeasedGrid, address, configuration, quorum
from strategies.fedavg import Draw, FedAvg, at_random
from strategies.registry import chosen_for

VIEW_SECONDS = 120.0  # what a strategy of Flower may wait for clients beyond those that are there
STRATEGY, INSTEAD = 3, 2  # what else is drawn in a round from (seed, round); FedAvg draws with 0 and 1

Configure = Callable[..., Iterable[Message]]


class Asking:
    """Makes the cohorts of a run's rounds. `attempt` counts the repeats of the round."""

    def __init__(self, grid: Grid, strategy: Strategy, settings: Settings, roster: Roster, clock: Clock) -> None:
        self._grid, self._strategy, self._settings = grid, strategy, settings
        self._roster, self._clock = roster, clock
        self._draw: Draw = in_turn(roster.history.turn) if settings.selection == "fair" else at_random
        if isinstance(strategy, FedAvg):
            strategy.draw = self._draw

    def train(self, number: int, attempt: int, record: ArrayRecord, failed: set[int]) -> Cohort:
        """Return the cohort that trains `record` in a round. Clients that `failed` are asked only where they must."""
        there = len(self._roster.leases.slots)
        if isinstance(self._strategy, FedAvg):
            self._strategy.there = there
        hoped = self._wanted(there)
        needed = quorum(self._settings, self._settings.clients_per_round or hoped)
        nodes = self._roster.eligible(number, hoped, needed, failed)
        wanted = min(hoped, len(nodes))
        if not isinstance(self._strategy, FedAvg) and chosen_for(self._settings):
            rng = self._rng(number, attempt, STRATEGY)
            seen = [nodes[place] for place in self._draw(nodes, min(self._asked(wanted), len(nodes)), rng)]
        else:
            seen = nodes
        messages = self._configured(self._strategy.configure_train, number, attempt, record, seen)
        self._roster.history.asked((message.metadata.dst_node_id for message in messages), number)
        wanted = min(wanted, len(messages)) if self._settings.over_selection > 1 else len(messages)
        instead = self._substitutes(nodes, list(messages), number, attempt)
        told = address(messages, self._roster.leases, self._settings.deadline_seconds, self._roster.agreement.order)
        return Cohort(told, wanted, needed, instead)

    def evaluate(self, number: int, attempt: int, record: ArrayRecord, failed: set[int]) -> Cohort:
        """Return the cohort that evaluates `record` in a round; it needs no quorum, and may be empty."""
        nodes = self._roster.eligible(number, len(self._roster.leases.slots), self._settings.quorum, failed)
        messages = self._configured(self._strategy.configure_evaluate, number, attempt, record, nodes)
        over = isinstance(self._strategy, FedAvg) and self._settings.over_selection > 1
        wanted = self._strategy.evaluators(len(nodes)) if over else len(messages)  # type: ignore[attr-defined]
        told = address(messages, self._roster.leases, evaluate_deadline(self._settings), self._roster.agreement.order)
        return Cohort(told, min(wanted, len(messages)))

    def _configured(
        self, configure: Configure, number: int, attempt: int, record: ArrayRecord, nodes: list[int]
    ) -> list[Message]:
        limit = self._clock.now() + (self._settings.wait_seconds or VIEW_SECONDS)
        view = LeasedGrid(self._grid, nodes, limit=limit, clock=self._clock)
        if isinstance(self._strategy, FedAvg):
            self._strategy.eligible = lambda: nodes
            self._strategy.attempt = attempt
        else:  # Flower's strategies sample with the module's own generator
            random.seed(f"{self._settings.seed}-{number}-{attempt}")
        messages = configure(number, record, configuration(self._settings, number), view)
        return [message for message in messages if message.metadata.dst_node_id in self._roster.leases.slots]

    def _substitutes(
        self, nodes: list[int], messages: list[Message], number: int, attempt: int
    ) -> Callable[[int], list[Message]]:
        """Return what gives messages to others of `nodes`, as many as it is asked for and there still are."""
        asked = {message.metadata.dst_node_id for message in messages}
        rng = self._rng(number, attempt, INSTEAD)

        def instead(wanted: int) -> list[Message]:
            spares = [node for node in nodes if node not in asked] if wanted > 0 else []
            chosen = [spares[place] for place in self._draw(spares, min(wanted, len(spares)), rng)] if spares else []
            asked.update(chosen)
            self._roster.history.asked(chosen, number)
            for node in chosen if isinstance(self._strategy, FedAvg) else ():
                self._strategy.join(node)  # type: ignore[attr-defined]
            first = messages[0]
            others = [Message(first.content, node, first.metadata.message_type) for node in chosen]
            return address(others, self._roster.leases, self._settings.deadline_seconds, self._roster.agreement.order)

        return instead

    def _wanted(self, available: int) -> int:
        if isinstance(self._strategy, FedAvg):
            return self._strategy.cohort_size(available)
        number = self._settings.clients_per_round or max(1, round(self._settings.fraction * available))
        return min(number, available)

    def _asked(self, wanted: int) -> int:
        return ceil(round(wanted * self._settings.over_selection, 9))

    def _rng(self, number: int, attempt: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self._settings.seed, number, purpose, attempt])


def evaluate_deadline(settings: Settings) -> float:
    """Return the time limit for the replies of an evaluation, in seconds."""
    return settings.evaluate_deadline_seconds or settings.deadline_seconds
