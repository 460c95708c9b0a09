"""What a round's event says: figures of its two phases, where the seconds went, the spread over the clients."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fl_common.messages.arrays import Arrays
from fl_server.rounds.phase import Phase

HEADLINES = ("loss", "accuracy", "evaluated_on", "seconds")


@dataclass(frozen=True)
class TrainedModel:
    """What the training phase of a round gave: the next model and the figures to report."""

    arrays: Arrays
    metrics: Mapping[str, float]
    phase: Phase
    aggregate_seconds: float
    bytes_down: int


@dataclass(frozen=True)
class Assessed:
    """What the evaluation of a round gave. `result` is the test set's where there is one, or else the clients'."""

    result: Mapping[str, Any]
    phase: Phase
    bytes_down: int
    test_seconds: float


def gaps(rounds: Iterable[Mapping[str, Any]]) -> int:
    """Return how many of these "round" events had good updates of less than half of the clients that they needed."""
    return sum(2 * event.get("replies", 0) < event.get("cohort", 0) - event.get("surplus", 0) for event in rounds)


def of_round(number: int, trained: TrainedModel, assessed: Assessed, phases: Mapping[str, float]) -> dict[str, Any]:
    """Return the "round" event. `phases` are seconds."""
    train, evaluate, result = trained.phase, assessed.phase, assessed.result
    return {
        "event": "round",
        "round": number,
        "seconds": round(sum(phases.values()), 4),
        "cohort": train.cohort,
        "replies": train.good,
        "rejected": train.rejected + evaluate.rejected,
        "surplus": train.surplus,
        **({"left": gone} if (gone := train.left + evaluate.left) else {}),
        "loss": result.get("loss"),
        "accuracy": result.get("accuracy"),
        "evaluated_on": result.get("evaluated_on"),
        "metrics": {name: value for name, value in result.items() if name not in HEADLINES},
        "train_loss": trained.metrics.get("loss"),
        "train_accuracy": trained.metrics.get("accuracy"),
        "bytes_up": train.bytes_up,
        "bytes_down": trained.bytes_down + assessed.bytes_down,
        "phases": {name: round(value, 4) for name, value in phases.items()},
        "spread": evaluate.spread(),
        "spread_examples": evaluate.usual_examples(),
        "inside": {
            "clients_train": train.quartiles("seconds"),
            "clients_evaluate": evaluate.quartiles("seconds"),
            "server_evaluates": round(assessed.test_seconds, 4),
        },
    }
