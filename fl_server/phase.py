"""One phase of a round, training or evaluation: replies are checked as they stream by, and counted.

Nothing a client sends can end a run: a bad reply is rejected, reported with its reason, and never reaches a strategy.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, cast

import numpy as np
from flwr.app import ArrayRecord, Message

from fl_common.arrays import Signature
from fl_common.errors import ParterreError, RejectedReply
from fl_common.together import members_of
from fl_server.leases import Leases
from fl_server.streaming import Answer
from strategies.replies import admit

Announce = Callable[[Mapping[str, Any]], object]
DETAIL_LENGTH = 500
QUARTILES = (0, 0.25, 0.5, 0.75, 1)


class QuorumMissed(ParterreError):  # noqa: N818
    """Too few good replies: raised out of the stream, so that a strategy that was aggregating it changes nothing."""


class Phase:
    """Counts and checks the answers of one phase. `replies` may be iterated once."""

    def __init__(
        self,
        name: Literal["train", "evaluate"],
        round_number: int,
        leases: Leases,
        *,
        signature: Signature | None,
        max_examples: int,
        announce: Announce,
    ) -> None:
        self.name = name
        self.cohort = 0
        self.good = 0
        self.rejected = 0
        self.bytes_up = 0
        self.waited = 0.0
        self.failed: set[int] = set()
        self.last_rejection = ""
        self.metrics: list[dict[str, float]] = []
        self._round = round_number
        self._leases = leases
        self._signature = signature
        self._max_examples = max_examples
        self._announce = announce

    def replies(self, answers: Iterable[Answer], *, quorum: int) -> Iterator[Message]:
        """Yield the replies worth aggregating. Raises QuorumMissed at the end where they are fewer than `quorum`."""
        remaining = iter(answers)
        while True:
            started = time.perf_counter()
            answer = next(remaining, None)
            self.waited += time.perf_counter() - started
            if answer is None:
                break
            standing = max(1, len(members_of(answer.reply))) if answer.reply is not None else 1
            self.cohort += standing
            try:
                self._check(answer)
            except RejectedReply as rejection:
                self._reject(answer.node, rejection, standing)
                continue
            self.good += standing
            yield cast(Message, answer.reply)
            del answer  # else its reply lives until the next one has come: two replies in memory
        if self.good < quorum:
            raise QuorumMissed(f"{self.good} good replies of {self.cohort} asked; the quorum is {quorum}")

    def spread(self) -> dict[str, list[float]]:
        """Return each metric's minimum, quartiles and maximum over the clients that reported it."""
        names = {name for each in self.metrics for name in each}
        return {name: self.quartiles(name) for name in sorted(names - {"seconds"})}

    def quartiles(self, name: str) -> list[float]:
        """Return minimum, quartiles and maximum of one metric over the clients that reported it."""
        values = [each[name] for each in self.metrics if name in each]
        return [round(float(value), 6) for value in np.quantile(values, QUARTILES)] if values else []

    def _check(self, answer: Answer) -> None:
        reply = answer.reply
        if reply is None:
            raise RejectedReply("late", "no reply before the deadline")
        members = members_of(reply)
        if reply.has_content():
            # Not through content.array_records: that view and the content refer to each other, and stay in memory.
            records = [record for record in reply.content.values() if isinstance(record, ArrayRecord)]
            size = sum(len(array.data) for record in records for array in record.values())
            self.bytes_up += size * max(1, len(members))  # what its clients would have sent
        admitted = admit(reply, self._signature, self._max_examples * max(1, len(members)))
        self.metrics += [dict(member.metrics) for member in members] or [dict(admitted.metrics)]

    def _reject(self, node: int, rejection: RejectedReply, standing: int) -> None:
        self.rejected += standing
        self.failed.add(node)
        self.last_rejection = f"Client {self._leases.slots.get(node)}: {rejection.detail[:DETAIL_LENGTH]}"
        self._announce(
            {
                "event": "rejected",
                "round": self._round,
                "client": self._leases.slots.get(node),
                "node": str(node),
                "phase": self.name,
                "reason": rejection.reason,
                "detail": rejection.detail[:DETAIL_LENGTH],
            }
        )
