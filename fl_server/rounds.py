"""The round loop, over any Grid and any Flower Strategy: sample, stream, aggregate, evaluate, commit, announce.

A strategy's four public methods are all that is called, so Flower's own and a person's own plug in unchanged. A round
that misses its quorum is repeated with other clients; a round that is committed is never lost.
"""

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fl_common.arrays import Arrays, Signature, conform, encode
from fl_common.errors import RoundError
from fl_common.settings import Settings
from fl_server.clock import clock_of
from fl_server.cohort import LeasedGrid, address, configuration, wait_for_clients
from fl_server.leases import Leases
from fl_server.phase import Phase, QuorumMissed
from fl_server.runs import Checkpoint, Run
from fl_server.streaming import Answer, stream
from fl_server.uniform import uniform
from strategies import foreign
from strategies.fedavg import FedAvg

HEADLINES = ("loss", "accuracy", "evaluated_on", "seconds")

Evaluate = Callable[[Arrays], Mapping[str, float]]
Observe = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class State:
    """Where a run stands: `round` rounds are committed and `arrays` is the global model after them."""

    arrays: Arrays
    round: int = 0
    best_loss: float = math.inf
    since_best: int = 0
    partitions: int = 0
    clock: float = 0.0  # of a simulated fleet; its time goes on where a run is resumed
    result: Mapping[str, Any] = field(default_factory=dict)

    def checkpoint(self, strategy: Strategy) -> Checkpoint:
        """Return the state as the run store keeps it."""
        best = self.best_loss if math.isfinite(self.best_loss) else None
        notes = {
            "best_loss": best,
            "since_best": self.since_best,
            "partitions": self.partitions,
            "clock": self.clock,
            "result": dict(self.result),
        }
        return Checkpoint(self.round, self.arrays, _strategy_state(strategy), notes)

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "State":
        """Return the state that a checkpoint holds."""
        notes = checkpoint.notes
        best = math.inf if notes["best_loss"] is None else float(notes["best_loss"])
        since, partitions = int(notes["since_best"]), int(notes["partitions"])
        clock = float(notes.get("clock", 0.0))
        return cls(checkpoint.arrays, checkpoint.round, best, since, partitions, clock, notes["result"])


@dataclass(frozen=True)
class Trained:
    """What training phase of a round gave: the next model and the figures to report."""

    arrays: Arrays
    metrics: Mapping[str, float]
    phase: Phase
    aggregate_seconds: float
    bytes_down: int


class Rounds:
    """Runs rounds until the settings say stop. `evaluate` is the server's own test set, where the task has one."""

    def __init__(
        self,
        grid: Grid,
        strategy: Strategy,
        settings: Settings,
        run: Run,
        *,
        evaluate: Evaluate | None = None,
        observe: Observe = lambda event: None,
    ) -> None:
        self._grid = grid
        self._clock = clock_of(grid)
        self._strategy = strategy
        self._settings = settings
        self._run = run
        self._evaluate = evaluate
        self._observe = observe
        self._leases = Leases(settings.partitions)
        self._sent: tuple[Arrays, ArrayRecord] | None = None
        self._attempt = 0
        self._test_seconds = 0.0
        self._commit_seconds = 0.0  # of the round before: a round's own is not over when its event is written
        if isinstance(strategy, FedAvg):
            strategy.replies_checked = True  # by the phase, so that the same bytes are not searched for NaN twice

    def run(self, state: State) -> tuple[State, str]:
        """Run on from `state`; return the last state and why it stopped: "rounds", "target_accuracy" or "patience"."""
        self._leases = Leases(self._settings.partitions, highest=state.partitions)
        if self._clock.simulated:
            self._clock.sleep(max(0.0, state.clock - self._clock.now()))
        while (reason := self._over(state)) is None:
            state = self._round(state)
        return state, reason

    def _over(self, state: State) -> str | None:
        settings = self._settings
        accuracy = state.result.get("accuracy")
        if settings.target_accuracy and accuracy is not None and accuracy >= settings.target_accuracy:
            return "target_accuracy"
        if settings.patience and state.since_best >= settings.patience:
            return "patience"
        return "rounds" if state.round >= settings.rounds else None

    def _round(self, state: State) -> State:
        number, started, fleet = state.round + 1, time.perf_counter(), [self._clock.now()]
        trained = self._train(state, number)
        trained_at = time.perf_counter()
        fleet.append(self._clock.now())
        result, evaluation = self._assess(trained.arrays, number, trained.phase.failed)
        evaluated_at = time.perf_counter()
        fleet.append(self._clock.now())
        partitions = self._leases.partitions
        state = _advance(replace(state, arrays=trained.arrays, round=number, partitions=partitions, result=result))
        state = replace(state, clock=fleet[-1] if self._clock.simulated else 0.0)
        phases = {
            "train": trained_at - started - trained.aggregate_seconds,
            "aggregate": trained.aggregate_seconds,
            "evaluate": evaluated_at - trained_at,
            "commit": self._commit_seconds,
        }
        event = self._report(number, trained, evaluation, result, phases)
        event |= {"fleet": _fleet(*fleet)} if self._clock.simulated else {}
        self._observe(self._run.commit(state.checkpoint(self._strategy), event))
        self._commit_seconds = time.perf_counter() - evaluated_at
        return state

    # ---- training

    def _train(self, state: State, number: int) -> Trained:
        """Return the next model. Repeats with other clients where the quorum is missed; then RoundError."""
        failed: set[int] = set()
        last = ""
        for attempt in range(self._settings.max_repeats + 1):
            self._leases = wait_for_clients(
                self._grid,
                self._leases,
                self._settings,
                announce=self._announce,
                clock=self._clock.now,
                sleep=self._clock.sleep,
            )
            phase = self._phase("train", number, Signature.of(state.arrays))
            self._attempt = attempt
            if isinstance(self._strategy, FedAvg):
                self._strategy.attempt = attempt
            try:
                return self._train_once(state, number, phase, failed)
            except QuorumMissed as missed:
                failed |= phase.failed
                last = phase.last_rejection or last
                self._announce({"event": "repeat", "round": number, "attempt": attempt + 1, "reason": str(missed)})
        raise RoundError(
            f"round {number} missed its quorum of {self._settings.quorum} {self._settings.max_repeats + 1} times; "
            f"{state.round} rounds are committed. {last or 'No client answered'}. "
            f"Mend that, then go on with `fl resume {self._run.directory}`."
        )

    def _train_once(self, state: State, number: int, phase: Phase, failed: set[int]) -> Trained:
        record = self._encoded(state.arrays)
        nodes = self._eligible(failed)
        messages = self._ask(self._strategy.configure_train, number, record, nodes)
        if not messages:
            raise RoundError(f"the strategy asked no client to train in round {number}; raise fraction or min_clients")
        answers = self._stream(messages)
        started = time.perf_counter()
        replies = self._for_strategy(phase.replies(answers, quorum=self._settings.quorum), state.arrays)
        arrays, metrics = self._strategy.aggregate_train(number, replies)
        seconds = time.perf_counter() - started - phase.waited
        if arrays is None:
            raise QuorumMissed("the strategy aggregated nothing")
        down = len(messages) * _size(record)
        return Trained(conform(arrays, state.arrays), _plain(metrics), phase, seconds, down)

    # ---- evaluation

    def _assess(self, arrays: Arrays, number: int, failed: set[int]) -> tuple[dict[str, Any], tuple[Phase, int]]:
        """Return the result to report, the server's test set before the clients', and the clients' phase and bytes."""
        phase = self._phase("evaluate", number, None)
        record = self._encoded(arrays)
        messages = self._ask(self._strategy.configure_evaluate, number, record, self._eligible(failed))
        answers = self._stream(messages) if messages else iter(())
        started = time.perf_counter()
        ours = dict(self._evaluate(arrays)) if self._evaluate else None
        self._test_seconds = time.perf_counter() - started
        theirs = self._strategy.aggregate_evaluate(number, self._for_strategy(phase.replies(answers, quorum=0), None))
        down = len(messages) * _size(record)
        if ours is not None:
            return {**ours, "evaluated_on": "test"}, (phase, down)
        return ({**_plain(theirs), "evaluated_on": "clients"} if theirs else {}), (phase, down)

    # ---- what both share

    def _ask(
        self, configure: Callable[..., Iterable[Message]], number: int, record: ArrayRecord, nodes: list[int]
    ) -> list[Message]:
        view = LeasedGrid(self._grid, nodes, limit=time.monotonic() + self._settings.wait_seconds)
        if isinstance(self._strategy, FedAvg):
            self._strategy.eligible = lambda: nodes
        else:  # Flower's strategies sample with the module's own generator
            random.seed(f"{self._settings.seed}-{number}-{self._attempt}")
        messages = configure(number, record, configuration(self._settings, number), view)
        return address(messages, self._leases, self._settings)

    def _stream(self, messages: list[Message]) -> Iterator[Answer]:
        deadline, clock = self._settings.deadline_seconds, self._clock
        return stream(self._grid, messages, deadline=deadline, clock=clock.now, sleep=clock.sleep)

    def _encoded(self, arrays: Arrays) -> ArrayRecord:
        """Return the model as it travels. What trains in a round is what was evaluated in the one before it."""
        if self._sent is None or self._sent[0] is not arrays:
            self._sent = (arrays, encode(arrays))
        return self._sent[1]

    def _eligible(self, failed: set[int]) -> list[int]:
        """Return the leased nodes in slot order, without those that failed in this round while others are enough."""
        nodes = self._leases.nodes()
        if not failed:
            return nodes
        others = [node for node in nodes if node not in failed]
        return others if len(others) >= max(self._settings.min_clients, self._settings.quorum) else nodes

    def _for_strategy(self, replies: Iterator[Message], like: Arrays | None) -> Iterable[Message]:
        """Our strategies take the stream; others may look at the replies more than once and get them all, alike."""
        return replies if isinstance(self._strategy, FedAvg) else uniform(replies, like)

    def _phase(self, name: Any, number: int, signature: Signature | None) -> Phase:
        return Phase(
            name,
            number,
            self._leases,
            signature=signature,
            max_examples=self._settings.max_examples,
            announce=self._announce,
        )

    def _announce(self, event: Mapping[str, Any]) -> None:
        self._observe(self._run.append(event))

    def _report(
        self,
        number: int,
        trained: Trained,
        evaluation: tuple[Phase, int],
        result: Mapping[str, Any],
        phases: Mapping[str, float],
    ) -> dict[str, Any]:
        phase, down = evaluation
        return {
            "event": "round",
            "round": number,
            "seconds": round(sum(phases.values()), 4),
            "cohort": trained.phase.cohort,
            "replies": trained.phase.good,
            "rejected": trained.phase.rejected + phase.rejected,
            "loss": result.get("loss"),
            "accuracy": result.get("accuracy"),
            "evaluated_on": result.get("evaluated_on"),
            "metrics": {name: value for name, value in result.items() if name not in HEADLINES},
            "train_loss": trained.metrics.get("loss"),
            "train_accuracy": trained.metrics.get("accuracy"),
            "bytes_up": trained.phase.bytes_up,
            "bytes_down": trained.bytes_down + down,
            "phases": {name: round(value, 4) for name, value in phases.items()},
            "spread": phase.spread(),
            "inside": {
                "clients_train": trained.phase.quartiles("seconds"),
                "clients_evaluate": phase.quartiles("seconds"),
                "server_evaluates": round(self._test_seconds, 4),
            },
        }


def _fleet(began: float, trained: float, evaluated: float) -> dict[str, float]:
    """Return a round's seconds of fleet time, and where the fleet's clock stands after it."""
    figures = {"seconds": evaluated - began, "train": trained - began, "evaluate": evaluated - trained}
    return {name: round(value, 3) for name, value in (figures | {"clock": evaluated}).items()}


def _advance(state: State) -> State:
    loss = state.result.get("loss")
    if loss is not None and loss < state.best_loss:
        return replace(state, best_loss=loss, since_best=0)
    return replace(state, since_best=state.since_best + 1)


def _plain(metrics: MetricRecord | None) -> dict[str, Any]:
    return dict(metrics or {})


def _size(record: ArrayRecord) -> int:
    return sum(len(array.data) for array in record.values())


def _strategy_state(strategy: Strategy) -> Arrays:
    return strategy.state() if isinstance(strategy, FedAvg) else foreign.snapshot(strategy)


def restore_strategy(strategy: Strategy, state: Mapping[str, Any]) -> None:
    """Put a strategy back to where a checkpoint left it."""
    if isinstance(strategy, FedAvg):
        strategy.restore(state)
    else:
        foreign.restore(strategy, state)
