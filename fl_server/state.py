"""Where a run stands between two rounds, and how the run store keeps it: model, strategy, leases, clients, counters."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from flwr.serverapp.strategy import Strategy

from fl_common.arrays import Arrays
from fl_server.runs import Checkpoint
from strategies import foreign
from strategies.fedavg import FedAvg


@dataclass(frozen=True)
class State:
    """`round` rounds are committed and `arrays` is the global model after them.

    `leases` and `clients` are as Leases.notes and Ledger.notes return them.
    """

    arrays: Arrays
    round: int = 0
    best_loss: float = math.inf
    since_best: int = 0
    partitions: int = 0
    clock: float = 0.0  # of a simulated fleet; its time goes on where a run is resumed
    result: Mapping[str, Any] = field(default_factory=dict)
    leases: Mapping[str, int] = field(default_factory=dict)
    clients: Mapping[str, Any] = field(default_factory=dict)

    def after(self, arrays: Arrays, result: Mapping[str, Any]) -> "State":
        """Return the state after one more round."""
        state = replace(self, arrays=arrays, round=self.round + 1, result=result)
        loss = result.get("loss")
        if loss is not None and loss < self.best_loss:
            return replace(state, best_loss=loss, since_best=0)
        return replace(state, since_best=self.since_best + 1)

    def checkpoint(self, strategy: Strategy) -> Checkpoint:
        """Return the state as the run store keeps it."""
        notes = {
            "best_loss": self.best_loss if math.isfinite(self.best_loss) else None,
            "since_best": self.since_best,
            "partitions": self.partitions,
            "clock": self.clock,
            "result": dict(self.result),
            "leases": dict(self.leases),
            "clients": dict(self.clients),
        }
        return Checkpoint(self.round, self.arrays, _strategy_state(strategy), notes)

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "State":
        """Return the state that a checkpoint holds."""
        notes = checkpoint.notes
        return cls(
            checkpoint.arrays,
            checkpoint.round,
            best_loss=math.inf if notes["best_loss"] is None else float(notes["best_loss"]),
            since_best=int(notes["since_best"]),
            partitions=int(notes["partitions"]),
            clock=float(notes.get("clock", 0.0)),
            result=notes["result"],
            leases=notes.get("leases", {}),
            clients=notes.get("clients", {}),
        )


def _strategy_state(strategy: Strategy) -> Arrays:
    return strategy.state() if isinstance(strategy, FedAvg) else foreign.snapshot(strategy)


def restore_strategy(strategy: Strategy, state: Mapping[str, Any]) -> None:
    """Put a strategy back to where a checkpoint left it."""
    if isinstance(strategy, FedAvg):
        strategy.restore(state)
    else:
        foreign.restore(strategy, state)
