"""Replies as strategies that are not ours need them: all of one form, whatever extras the clients sent.

Flower's own strategies raise, and so end the run, where one client's reply has other metrics, other names of records or
nothing to evaluate on; some of them take arrays by position. Replies come here from a phase, which has checked them.
"""

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

from strategies.replies import WEIGHT

ARRAYS, METRICS = "arrays", "metrics"


def uniform(replies: Iterable[Message], like: Mapping[str, Any] | None) -> list[Message]:
    """Return all replies with a record "arrays", in the order of `like`, and a record "metrics" of what all share.

    `like` None is an evaluation: no arrays, and clients that had no example are left out. A metric that one client
    lacks, or gives as NaN or infinite, is left out of all.
    """
    messages = list(replies)
    told = [_of_kind(message, MetricRecord) for message in messages]
    kept = [(message, metrics) for message, metrics in zip(messages, told, strict=True) if like or metrics[WEIGHT]]
    shared = [name for name in (kept[0][1] if kept else ()) if all(_finite(metrics.get(name)) for _, metrics in kept)]
    for message, metrics in kept:
        content = RecordDict({METRICS: MetricRecord({name: metrics[name] for name in shared})})
        if like is not None:
            arrays = _of_kind(message, ArrayRecord)
            content[ARRAYS] = ArrayRecord({name: arrays[name] for name in like})
        message.content = content
    return [message for message, _ in kept]


def _of_kind(message: Message, kind: type[Any]) -> Any:
    return next(record for record in message.content.values() if isinstance(record, kind))


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and isfinite(value)
