"""The round loop, over any Grid and any Flower Strategy: sample, stream, aggregate, evaluate, commit, announce.

A strategy's four public methods are all that is called, so Flower's own and a person's own plug in unchanged. A round
that misses its quorum is repeated with other clients; a round that is committed is never lost.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fl_common.errors import RoundError, StoreError, TooFewReplies
from fl_common.messages.arrays import Arrays, Signature, conformed, decode_record, encode
from fl_common.settings.schema import Settings
from fl_server.rounds import report
from fl_server.rounds.asking import Asking, evaluate_deadline
from fl_server.rounds.clients.leases import Leases
from fl_server.rounds.clients.roster import Roster
from fl_server.rounds.clock import TimedGrid, clock_of
from fl_server.rounds.cohort import MESSAGE_MARGIN_SECONDS, Cohort
from fl_server.rounds.exchange import Stream
from fl_server.rounds.phase import Phase, QuorumMissed
from fl_server.rounds.reply_limits import Limits
from fl_server.rounds.report import Assessed, TrainedModel
from fl_server.rounds.state import State
from fl_server.rounds.stopping import over
from fl_server.rounds.uniform_replies import uniform
from fl_server.store.commits import Commits
from fl_server.store.log.events_log import stamp
from fl_server.store.runs import Run
from fl_server.superlink.fleet.reply_bounds import bounds_of
from strategies.fedavg import FedAvg

REPLIED_SECONDS = 0.5

Evaluate = Callable[[Arrays], Mapping[str, float]]
Observe = Callable[[Mapping[str, Any]], None]


class Rounds:
    """Runs rounds until the settings say stop. `evaluate` is the server's own test set, where the task has one.

    halt: is called before each round, and may raise to end the run there.
    """

    def __init__(
        self,
        grid: Grid,
        strategy: Strategy,
        settings: Settings,
        run: Run,
        *,
        evaluate: Evaluate | None = None,
        observe: Observe = lambda event: None,
        halt: Callable[[], object] = lambda: None,
    ) -> None:
        self._grid = grid
        self._clock = clock_of(grid)
        self._strategy = strategy
        self._settings = settings
        self._limits = Limits.of(settings)
        self._run = run
        self._evaluate = evaluate
        self._observe = observe
        self._halt = halt
        self._sent: tuple[Arrays, ArrayRecord] | None = None
        self._attempt = 0
        self._said_at = time.monotonic()
        self._commit_seconds = 0.0  # of the round before: a round's own is not over when its event is written
        if isinstance(strategy, FedAvg):
            strategy.replies_checked = True  # by the phase, so that the same bytes are not searched for NaN twice

    def took_part(self) -> dict[str, Any]:
        """Return who did not, for the "finished" event: after `run`."""
        absent = self._roster.absent() if self._whole or not self._clock.simulated else []
        return {"absent": absent, "never_joined": self._roster.never_joined()}

    def run(self, state: State) -> tuple[State, str]:
        """Run on from `state`; return the last state and why it stopped: "rounds", "target_accuracy" or "patience"."""
        self._whole = not state.round  # a resumed simulation does not know who trained before
        leases = Leases.of(state.leases, limit=self._settings.partitions, highest=state.partitions)
        self._roster = Roster(
            self._grid,
            self._settings,
            self._clock,
            self._announce,
            leases=leases,
            clients=state.clients,
            schema=state.schema,
        )
        self._asking = Asking(self._grid, self._strategy, self._settings, self._roster, self._clock)
        if isinstance(self._grid, TimedGrid):
            self._resume_time(self._grid, state)
        self._commits = Commits(self._run, self._observe)
        state = replace(state, arrays=self._as_sent(state.arrays))
        try:
            while (reason := over(self._settings, state)) is None:
                self._halt()
                state = self._round(state)
        except RoundError:  # its rejected replies are in no checkpoint
            self._commits.settle()
            self._run.keep_clients(self._roster.notes())
            raise
        finally:
            self._commits.close()
        return state, reason

    def _resume_time(self, grid: TimedGrid, state: State) -> None:
        self._clock.sleep(max(0.0, state.clock - self._clock.now()))
        if not state.fleet:
            return
        try:
            grid.restore(state.fleet["grid"])
            self._roster.stragglers.restore(state.fleet["stragglers"])
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(
                f"the checkpoint of round {state.round} is damaged: it does not say what is on its way in the fleet "
                f"({type(error).__name__}: {error}). Remove it, and the one before is taken."
            ) from None

    def _time_notes(self) -> dict[str, Any]:
        if not isinstance(self._grid, TimedGrid):
            return {}
        return {"grid": self._grid.notes(), "stragglers": self._roster.stragglers.notes()}

    def _round(self, state: State) -> State:
        number, started, fleet = state.round + 1, time.perf_counter(), [self._clock.now()]
        trained = self._train(state, number)
        trained_at = time.perf_counter()
        fleet.append(self._clock.now())
        assessed = self._assess(state, trained.arrays, number, trained.phase.failed)
        evaluated_at = time.perf_counter()
        fleet.append(self._clock.now())
        phases = {
            "train": trained_at - started - trained.aggregate_seconds,
            "aggregate": trained.aggregate_seconds,
            "evaluate": evaluated_at - trained_at,
            "commit": self._commit_seconds,
        }
        event = report.of_round(number, trained, assessed, phases)
        event |= (
            {"fleet": _fleet(*fleet, there=len(self._roster.leases.slots))} if self._clock.simulated else self._unused()
        )
        state = self._commit(state.after(trained.arrays, assessed.result, self._settings.measure_counted()), event)
        self._commit_seconds = time.perf_counter() - evaluated_at
        return state

    def _unused(self) -> dict[str, int]:
        unused = self._roster.unused()
        return {"unused": unused, "partitions": self._roster.leases.partitions} if unused else {}

    def _commit(self, state: State, event: Mapping[str, Any]) -> State:
        state = replace(
            state,
            clock=self._clock.now() if self._clock.simulated else 0.0,
            fleet=self._time_notes(),
            partitions=self._roster.leases.partitions,
            leases=self._roster.leases.notes(),
            clients=self._roster.notes(),
            schema=self._roster.agreement.settled,
        )
        clients = state.clients if self._roster.history.changed else None
        self._roster.history.changed = False
        self._commits.begin(state.checkpoint(self._strategy), event, clients)
        return state

    # ---- training

    def _train(self, state: State, number: int) -> TrainedModel:
        """Return the next model. Repeats with other clients where the quorum is missed; then RoundError."""
        failed: set[int] = set()
        last = ""
        for attempt in range(self._settings.max_repeats + 1):
            self._roster.gather(number)
            phase = self._phase("train", number, state.arrays)
            self._attempt = attempt
            try:
                return self._train_once(state, number, phase, failed)
            except TooFewReplies as missed:
                if mistake := phase.common_mistake():
                    raise RoundError(self._alike(number, mistake, state)) from None
                failed |= phase.failed
                last = phase.last_rejection or last or str(missed)
                self._announce({"event": "repeat", "round": number, "attempt": attempt + 1, "reason": str(missed)})
        raise RoundError(
            f"round {number} missed its quorum {self._settings.max_repeats + 1} times; "
            f"{state.round} rounds are committed. {last or 'No client answered'}. "
            f"Mend that, then go on with `fl resume {self._run.directory}`."
        )

    def _train_once(self, state: State, number: int, phase: Phase, failed: set[int]) -> TrainedModel:
        record = self._encoded(state.arrays)
        cohort = self._asking.train(number, self._attempt, record, failed)
        if not cohort.messages:
            raise RoundError(f"the strategy asked no client to train in round {number}; raise fraction or min_clients")
        with self._asked(cohort, phase, record, self._settings.deadline_seconds) as answers:
            started = time.perf_counter()
            replies = self._for_strategy(phase.replies(answers, cohort), state.arrays)
            arrays, metrics = self._strategy.aggregate_train(number, replies)
            seconds = time.perf_counter() - started - phase.waited
        if arrays is None:
            raise QuorumMissed("the strategy aggregated nothing")
        down = answers.asked * _size(record)
        self._sent = conformed(arrays, state.arrays)
        return TrainedModel(self._sent[0], _plain(metrics), phase, seconds, down)

    def _alike(self, number: int, mistake: str, state: State) -> str:
        after = f", then go on with `fl resume {self._run.directory}`" if state.round else " and start again"
        what = mistake.removesuffix(".")
        return f"every client failed alike in round {number}, so it is not repeated: {what}. Mend that{after}."

    # ---- evaluation

    def _assess(self, state: State, arrays: Arrays, number: int, failed: set[int]) -> Assessed:
        """Return the result to report, the server's test set before the clients', and the clients' phase and bytes."""
        phase, record = self._phase("evaluate", number, None), self._encoded(arrays)
        cohort = self._asking.evaluate(number, self._attempt, record, failed)
        with self._asked(cohort, phase, record, evaluate_deadline(self._settings)) as answers:
            started = time.perf_counter()
            ours = dict(self._evaluate(arrays)) if self._evaluate else None
            seconds = time.perf_counter() - started
            replies = self._for_strategy(phase.replies(answers, cohort), None)
            theirs = self._strategy.aggregate_evaluate(number, replies)
        if mistake := phase.common_mistake():
            raise RoundError(self._alike(number, mistake, state))
        if ours is not None:
            result = {**ours, "evaluated_on": "test"}
        else:
            result = {**_plain(theirs), "evaluated_on": "clients"} if theirs else {}
        return Assessed(result, phase, answers.asked * _size(record), seconds)

    # ---- what both share

    @contextmanager
    def _asked(self, cohort: Cohort, phase: Phase, record: ArrayRecord, deadline: float) -> Iterator[Stream]:
        """Send a cohort's messages, and give their answers; draw the consequences when the phase has ended."""
        began, bounds = self._clock.now(), bounds_of(record, self._settings.max_reply_mb, arrays=phase.name == "train")
        answers = Stream(
            self._grid, cohort.messages, deadline=deadline, enough=cohort.wanted, clock=self._clock, bounds=bounds
        )
        try:
            yield answers
        finally:
            self._roster.review(phase, self._attempt, began, began + deadline + MESSAGE_MARGIN_SECONDS)

    def _as_sent(self, arrays: Arrays) -> Arrays:
        """Return the model as views of the bytes that travel: it is in memory once."""
        record = encode(arrays)
        self._sent = (decode_record(record, Signature.of(arrays)), record)
        return self._sent[0]

    def _encoded(self, arrays: Arrays) -> ArrayRecord:
        """Return the model as it travels. What trains in a round is what was evaluated in the one before it."""
        if self._sent is None or self._sent[0] is not arrays:
            self._sent = (arrays, encode(arrays))
        return self._sent[1]

    def _for_strategy(self, replies: Iterator[Message], like: Arrays | None) -> Iterable[Message]:
        """Our strategies take the stream; others may look at the replies more than once and get them all, alike."""
        return replies if isinstance(self._strategy, FedAvg) else uniform(replies, like)

    def _phase(self, name: Any, number: int, sent: Arrays | None) -> Phase:
        return Phase(
            name,
            number,
            self._roster.leases,
            sent=sent,
            limits=self._limits,
            history=self._roster.history,
            announce=self._announce,
            replied=self._replied,
        )

    def _replied(self, event: Mapping[str, Any]) -> None:
        """Show how many replies are there, now and then; the run's log is not told."""
        now = time.monotonic()
        if now - self._said_at >= REPLIED_SECONDS:
            self._said_at = now
            self._observe(stamp(event))

    def _announce(self, event: Mapping[str, Any]) -> None:
        self._commits.settle()  # what is said now is said after the round before
        self._observe(self._run.append(event))


def _fleet(began: float, trained: float, evaluated: float, *, there: int) -> dict[str, float]:
    """Return a round's seconds of fleet time, where its clock stands then, and how many clients were there."""
    figures = {"seconds": evaluated - began, "train": trained - began, "evaluate": evaluated - trained}
    return {name: round(value, 3) for name, value in (figures | {"clock": evaluated}).items()} | {"there": there}


def _plain(metrics: MetricRecord | None) -> dict[str, Any]:
    return dict(metrics or {})


def _size(record: ArrayRecord) -> int:
    return sum(len(array.data) for array in record.values())
