"""What came of a cohort's training, as replies: one for each client, or one for all whose mean is wanted."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from fl_common.messages.arrays import Arrays, encode, is_float
from fl_common.messages.group_reply import Member, Together
from fl_common.models.tensors import as_metrics
from fl_simulation.engine.work import Outcome
from strategies.replies import WEIGHT


@dataclass(frozen=True)
class TrainedClients:
    """Clients that were trained: the messages they answer, what came of it, and the seconds that each took."""

    messages: Sequence[Message]
    outcome: Outcome
    examples: NDArray[np.int64]
    seconds: float

    def metrics(self) -> list[dict[str, float]]:
        """Return each client's metrics."""
        names, columns = list(self.outcome.metrics), self.outcome.metrics.values()
        if any(column.ndim > 1 for column in columns):
            rows = [as_metrics(dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]
        else:
            rows = [dict(zip(names, row, strict=True)) for row in zip(*(map(float, c) for c in columns), strict=True)]
        rows = rows or [{} for _ in self.messages]
        return [{**row, "seconds": self.seconds} for row in rows]


def one_by_one(trained: TrainedClients) -> Iterator[Message]:
    """Yield a reply for each client."""
    metrics = trained.metrics()
    for place, message in enumerate(trained.messages):
        own = {name: value[place] for name, value in trained.outcome.arrays.items()}
        yield _reply(message, own, int(trained.examples[place]), metrics[place])


def together(parts: Sequence[TrainedClients], before: Arrays) -> Iterator[Message]:
    """Yield one reply for all clients whose weights are finite, and one for each other, to be rejected.

    parts: their outcomes hold sums. before: the weights that all began with, in the model's order.
    """
    members: list[Member] = []
    first: Message | None = None
    for part in parts:
        examples = part.examples.tolist()
        for place, (message, metrics) in enumerate(zip(part.messages, part.metrics(), strict=True)):
            if part.outcome.finite[place]:
                first = first or message
                members.append(Member(message.metadata.message_id, examples[place], metrics))
            else:
                yield _reply(message, {name: _nothing(old) for name, old in before.items()}, examples[place], metrics)
    if first is not None:
        yield Together(_mean(parts, members, before), first, members)


def _mean(parts: Sequence[TrainedClients], members: Sequence[Member], before: Arrays) -> RecordDict:
    whole = Outcome.added([part.outcome for part in parts])
    examples = np.concatenate([part.examples for part in parts])
    total = MetricRecord({WEIGHT: sum(int(member.examples) for member in members)})
    return RecordDict({"arrays": encode(whole.mean(examples, before)), "metrics": total})


def _nothing(array: NDArray[Any]) -> NDArray[Any]:
    return np.full_like(array, np.nan) if is_float(array.dtype) else array


def _reply(message: Message, arrays: Arrays, examples: int, metrics: Mapping[str, float]) -> Message:
    record = MetricRecord({WEIGHT: examples, **metrics})
    return Message(RecordDict({"arrays": encode(arrays), "metrics": record}), reply_to=message)
