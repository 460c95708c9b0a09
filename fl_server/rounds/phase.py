"""One phase of a round, training or evaluation: replies are checked as they stream by, and counted.

Nothing a client sends can end a run: a bad reply is rejected, reported with its reason, and never reaches a strategy.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from math import nan
from typing import Any, Literal, cast

import numpy as np
from flwr.app import ArrayRecord, Message

from fl_common.errors import RejectedReply, TooFewReplies
from fl_common.messages.arrays import Arrays, Signature
from fl_common.messages.group_reply import members_of
from fl_common.trust.untrusted_text import clean
from fl_server.rounds.clients.client_history import ClientHistory
from fl_server.rounds.clients.leases import Leases
from fl_server.rounds.cohort import Cohort
from fl_server.rounds.exchange import Answer, Stream
from fl_server.rounds.reply_limits import Limits
from fl_server.superlink.grid.pulling import REASONS
from strategies.replies import LARGEST, Reply, admit

Announce = Callable[[Mapping[str, Any]], object]
Replied = Callable[[Mapping[str, Any]], object]
DETAIL_LENGTH = 500
MANY = 2  # clients: what fewer do is no mistake of all
LEAVING = "left"  # the reason of a client that said goodbye: no fault of it
PASSING = ("lost", "late")  # reasons that say nothing about the next attempt
NUMBER = re.compile(r"\d+")  # of a client, a partition or a line
QUARTILES = (0, 0.25, 0.5, 0.75, 1)


class QuorumMissed(TooFewReplies):
    """Too few good replies: raised out of the stream, so that a strategy that was aggregating it changes nothing."""


class Phase:
    """Counts and checks the answers of one phase. `replies` may be iterated once.

    sent: the model that clients train from; None for an evaluation.
    """

    def __init__(
        self,
        name: Literal["train", "evaluate"],
        round_number: int,
        leases: Leases,
        *,
        sent: Arrays | None,
        limits: Limits,
        history: ClientHistory,
        announce: Announce,
        replied: Replied = lambda event: None,
    ) -> None:
        self.name = name
        self.cohort = 0
        self.good = 0
        self.rejected = 0
        self.left = 0  # clients that said goodbye before they had answered
        self.unanswered: dict[str, int] = {}  # id of a message -> the node that may still answer it
        self.came: set[str] = set()  # those of them that did, just before
        self.given_up = ""  # and why nobody waits for that
        self.bytes_up = 0
        self.waited = 0.0
        self.failed: set[int] = set()
        self.last_rejection = ""
        self.mistakes: set[tuple[str, str]] = set()  # what was wrong with the replies, whoever sent them
        self.metrics: list[dict[str, float]] = []
        self.examples: list[float] = []  # of each, as its metrics
        self.round = round_number
        self._leases = leases
        self._sent = sent
        self._signature = Signature.of(sent) if sent is not None else None
        self._limits = limits
        self._history = history
        self._announce = announce
        self._replied = replied

    def replies(self, answers: Stream, cohort: Cohort) -> Iterator[Message]:
        """Yield the replies worth aggregating until there are as many as the cohort wants, or no more can come.

        Raises QuorumMissed at the end where they are fewer than the cohort's quorum, and as soon as it is sure.
        """
        while self.good < cohort.wanted or not answers.expected:
            if answers.asked:
                self._replied(self._progress(answers.asked))
            answer = self._next(answers)
            if answer is None:
                break
            standing = len(answer.nodes)
            try:
                self._check(answer)
            except RejectedReply as rejection:
                self._reject(answer.node, rejection, standing)
                if not answers.over:
                    self._ask_others(answers, cohort, cohort.wanted if answer.lost else cohort.quorum)
                    if self.good + answers.expected < cohort.quorum:
                        break
                continue
            self.good += standing
            for node in answer.nodes:
                self._history.good(node, self.name)
            yield cast(Message, answer.reply)
            del answer  # else its reply lives until the next one has come: two replies in memory
        self._end(answers, cohort.quorum)

    def _ask_others(self, answers: Stream, cohort: Cohort, needed: int) -> None:
        others = cohort.instead(needed - self.good - answers.expected)
        if others:
            answers.ask(others, enough=cohort.wanted - self.good)

    def _end(self, answers: Stream, quorum: int) -> None:
        self.cohort = answers.asked
        missed = self.good < quorum
        self.unanswered, self.came = answers.close(), answers.came
        self.given_up = "late" if answers.over else "repeat" if missed else "surplus"
        if missed:
            more = f", and at most {answers.expected} more can come" if answers.expected and not answers.over else ""
            raise QuorumMissed(f"{self.good} good replies of {self.cohort} asked{more}; the quorum is {quorum}")

    def common_mistake(self) -> str:
        """Return what every client that was asked, more than one, did alike; "" where they differ, or it may pass."""
        alone = len(self.failed) < MANY or self.good or self.rejected < self.cohort or len(self.mistakes) > 1
        passing = any(reason in PASSING for reason, _ in self.mistakes)
        return "" if alone or passing else self.last_rejection.partition(": ")[2]

    @property
    def surplus(self) -> int:
        """How many clients were asked whose replies were not needed."""
        return len(self.unanswered) if self.given_up == "surplus" else 0

    def spread(self) -> dict[str, list[float]]:
        """Return minimum, quartiles and maximum of each metric that half of the clients or more reported."""
        reported = Counter(name for each in self.metrics for name in each)
        names = [name for name, times in reported.items() if 2 * times >= len(self.metrics)]  # else one could add any
        found = {name: self.quartiles(name) for name in sorted(names) if name != "seconds"}
        return {name: values for name, values in found.items() if values}

    def usual_examples(self) -> float | None:
        """Return the median of the examples behind one client's metrics; None where no client reported."""
        return float(np.median(self.examples)) if self.examples else None

    def quartiles(self, name: str) -> list[float]:
        """Return minimum, quartiles and maximum of one metric over the clients that reported it."""
        values = [each[name] for each in self.metrics if abs(each.get(name, nan)) <= LARGEST]
        return [round(float(value), 6) for value in np.quantile(values, QUARTILES)] if values else []

    def _progress(self, asked: int) -> dict[str, Any]:
        came = {"replies": self.good + self.rejected + self.left, "cohort": asked}
        return {"event": "replied", "round": self.round, "phase": self.name, **came}

    def _next(self, answers: Iterator[Answer]) -> Answer | None:
        started = time.perf_counter()
        try:
            return next(answers, None)
        finally:
            self.waited += time.perf_counter() - started

    def _check(self, answer: Answer) -> None:
        reply = answer.reply
        if reply is None:
            raise RejectedReply(*(LOST if answer.lost else LATE))
        members = members_of(reply)
        if reply.has_content():
            # Not through content.array_records: that view and the content refer to each other, and stay in memory.
            records = [record for record in reply.content.values() if isinstance(record, ArrayRecord)]
            size = sum(len(array.data) for record in records for array in record.values())
            self.bytes_up += size * max(1, len(members))  # what its clients would have sent
        elif answer.lost or reply.error.code in REASONS:
            raise RejectedReply(REASONS.get(reply.error.code, "lost"), reply.error.reason or LOST[1])
        admitted = admit(reply, self._signature, self._limits.examples * max(1, len(members)))
        for member in members:
            self._limits.check(Reply(admitted.node, member.examples, metrics=member.metrics), None)
        self._limits.check(admitted, self._sent)
        self.metrics += [dict(member.metrics) for member in members] or [dict(admitted.metrics)]
        self.examples += [member.examples for member in members] or [admitted.weight]

    def _reject(self, node: int, rejection: RejectedReply, standing: int) -> None:
        leaving = rejection.reason == LEAVING
        self.left += standing * leaving
        self.rejected += standing * (not leaving)
        self.failed.add(node)
        detail = clean(rejection.detail, most=DETAIL_LENGTH)
        self.last_rejection = f"Client {self._leases.slots.get(node)}: {detail}"
        self.mistakes.add((rejection.reason, NUMBER.sub("#", detail)))
        if not leaving:
            self._history.rejected(node, self.name, rejection.reason)
        self._announce(
            {
                "event": "rejected",
                "round": self.round,
                "client": self._leases.slots.get(node),
                "node": str(node),
                "phase": self.name,
                "reason": rejection.reason,
                "detail": detail,
            }
        )


LATE = ("late", "no reply before the deadline")
LOST = ("lost", "the client is gone")
