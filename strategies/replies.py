"""The gate for replies: what a client sent becomes a checked `Reply`, or is rejected with a reason, never more."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import fsum

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

from fl_common.errors import RejectedReply
from fl_common.messages.arrays import Arrays, Signature, check_finite, decode_record
from fl_common.trust.untrusted_text import clean

WEIGHT = "num-examples"
MAX_EXAMPLES = 10_000_000
MOST_METRICS, LONGEST_NAME = 1000, 200  # of one reply: a model of many outputs has some hundred
LARGEST = 3.4028234663852886e38  # of float32: what is beyond it is infinite to every model and dashboard
REASONS = ("error", "empty", "malformed", "name", "shape", "dtype", "not-finite", "weight", "metrics")


@dataclass(frozen=True)
class Reply:
    """A reply that may touch the aggregate. `arrays` are read-only views over the message's bytes."""

    node: int
    weight: float
    arrays: Arrays = field(default_factory=dict, repr=False)
    metrics: Mapping[str, float] = field(default_factory=dict)


def admit(
    message: Message,
    signature: Signature | None,
    max_examples: int = MAX_EXAMPLES,
    *,
    finite: bool = True,
) -> Reply:
    """Check a reply of a training phase, or of an evaluation where `signature` is None.

    A training reply has one ArrayRecord that fits the signature and one MetricRecord with "num-examples" in
    (0, max_examples]. An evaluation may claim 0 examples: that client has nothing to evaluate on. `finite=False` leaves
    out the search for NaN, for replies that went through here before. Raises RejectedReply with one of REASONS.
    """
    node = message.metadata.src_node_id
    if message.has_error():
        raise RejectedReply("error", message.error.reason or f"code {message.error.code}")
    if not message.has_content():
        raise RejectedReply("empty", "the reply holds neither content nor error")
    metrics = _metrics(message.content)
    weight = _weight(metrics, max_examples, zero=signature is None)
    arrays = {} if signature is None else _arrays(message.content, signature, finite)
    return Reply(node, weight, arrays, {name: value for name, value in metrics.items() if name != WEIGHT})


# Never through content.array_records or .metric_records: each such view refers back to the content, and the cycle keeps
# the whole reply in memory until Python's cycle collector runs.
def _arrays(content: RecordDict, signature: Signature, finite: bool) -> Arrays:
    records = [record for record in content.values() if isinstance(record, ArrayRecord)]
    if not records or not any(records):
        raise RejectedReply("empty", "expected one record of arrays; got none")
    if len(records) > 1:
        raise RejectedReply("malformed", f"expected one record of arrays; got {len(records)}")
    arrays = decode_record(records[0], signature)
    if finite:
        check_finite(arrays)
    return arrays


def _metrics(content: RecordDict) -> dict[str, float]:
    records = [record for record in content.values() if isinstance(record, MetricRecord)]
    if not records:
        raise RejectedReply("empty", "expected one record of metrics; got none")
    if len(records) > 1:
        raise RejectedReply("malformed", f"expected one record of metrics; got {len(records)}")
    if len(records[0]) > MOST_METRICS:
        raise RejectedReply("metrics", f"expected at most {MOST_METRICS} metrics; got {len(records[0])}")
    return {name: _number(name, value) for name, value in records[0].items()}


def _number(name: str, value: object) -> float:
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise RejectedReply("metrics", f"expected the name of a metric; got {clean(name, most=LONGEST_NAME)}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RejectedReply("metrics", f"{name}: expected a number; got {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:
        raise RejectedReply("metrics", f"{name}: expected a number; got an integer beyond float64") from None


def _weight(metrics: Mapping[str, float], max_examples: int, *, zero: bool) -> float:
    if WEIGHT not in metrics:
        raise RejectedReply("weight", f"expected a metric {WEIGHT!r}; got none")
    weight = metrics[WEIGHT]
    if not 0 <= weight <= max_examples or (weight == 0 and not zero):  # NaN fails the first comparison
        raise RejectedReply("weight", f"{WEIGHT}: expected a number in (0, {max_examples}]; got {weight}")
    return weight


def mean_metrics(replies: Iterable[tuple[float, Mapping[str, float]]]) -> MetricRecord:
    """Return the weighted mean of every metric that all replies hold. `replies` are (weight, metrics).

    Sums are exact (math.fsum), so the order of replies does not show. A client's NaN, infinity or number beyond float32
    is left out of that metric's mean; a metric that is finite nowhere is left out altogether.
    """
    pairs = list(replies)
    common = [name for name in (pairs[0][1] if pairs else ()) if all(name in metrics for _, metrics in pairs)]
    means = MetricRecord()
    for name in common:
        terms = [(weight, metrics[name]) for weight, metrics in pairs if abs(metrics[name]) <= LARGEST]  # no NaN is
        if total := fsum(weight for weight, _ in terms):
            means[name] = fsum(weight * value / total for weight, value in terms)
    return means
