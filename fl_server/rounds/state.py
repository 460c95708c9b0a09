"""Where a run stands between two rounds, and how the run store keeps it: model, strategy, leases, clients, counters."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from flwr.serverapp.strategy import Strategy

from fl_common.errors import StoreError
from fl_common.messages.arrays import Arrays
from fl_common.settings.best_metric import LOSS, Measure
from fl_server.store.runs import Checkpoint
from strategies.fedavg import FedAvg
from strategies.host import foreign_state


@dataclass(frozen=True)
class State:
    """`round` rounds are committed and `arrays` is the global model after them.

    best: the best value so far of the metric that counts, a lower one being better, as Measure.of gives it. `leases`
    and `clients` are as Leases.notes and ClientHistory.notes return them.
    """

    arrays: Arrays
    round: int = 0
    best: float = math.inf
    since_best: int = 0
    partitions: int = 0
    clock: float = 0.0  # of a simulated fleet; its time goes on where a run is resumed
    fleet: Mapping[str, Any] = field(default_factory=dict)  # who is at work in it still, as TimedGrid.notes says
    result: Mapping[str, Any] = field(default_factory=dict)
    leases: Mapping[str, int] = field(default_factory=dict)
    clients: Mapping[str, Any] = field(default_factory=dict)
    schema: str = ""  # what the clients call their data, as JSON

    def after(self, arrays: Arrays, result: Mapping[str, Any], measure: Measure = LOSS) -> "State":
        """Return the state after one more round."""
        state = replace(self, arrays=arrays, round=self.round + 1, result=result)
        value = measure.of(result)
        if value is not None and value < self.best:
            return replace(state, best=value, since_best=0)
        return replace(state, since_best=self.since_best + 1)

    def checkpoint(self, strategy: Strategy) -> Checkpoint:
        """Return the state as the run store keeps it."""
        notes = {
            "best": self.best if math.isfinite(self.best) else None,
            "since_best": self.since_best,
            "partitions": self.partitions,
            "clock": self.clock,
            "result": dict(self.result),
            "leases": dict(self.leases),
            "clients": dict(self.clients),
            **({"schema": self.schema} if self.schema else {}),
            **({"fleet": dict(self.fleet)} if self.fleet else {}),
        }
        return Checkpoint(self.round, self.arrays, _strategy_state(strategy), notes)

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "State":
        """Return the state that a checkpoint holds. Raises StoreError where its notes are not those of a state."""
        try:
            return cls._of(checkpoint)
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(
                f"the checkpoint of round {checkpoint.round} is damaged: its notes are not those of a run "
                f"({type(error).__name__}: {error}). Remove it, and the one before is taken."
            ) from None

    @classmethod
    def _of(cls, checkpoint: Checkpoint) -> "State":
        notes = checkpoint.notes
        best = notes.get("best", notes.get("best_loss"))  # as it was called before a run could name its metric
        return cls(
            checkpoint.arrays,
            checkpoint.round,
            best=math.inf if best is None else float(best),
            since_best=int(notes["since_best"]),
            partitions=int(notes["partitions"]),
            clock=float(notes.get("clock", 0.0)),
            fleet=notes.get("fleet", {}),
            result=notes["result"],
            leases=notes.get("leases", {}),
            clients=notes.get("clients", {}),
            schema=str(notes.get("schema", "")),
        )


def _strategy_state(strategy: Strategy) -> Arrays:
    return strategy.state() if isinstance(strategy, FedAvg) else foreign_state.snapshot(strategy)


def restore_strategy(strategy: Strategy, state: Mapping[str, Any]) -> None:
    """Put a strategy back to where a checkpoint left it."""
    if isinstance(strategy, FedAvg):
        strategy.restore(state)
    else:
        foreign_state.restore(strategy, state)
