"""The gate for replies: each way a reply can be bad has its word, and none gets through."""

import numpy as np
import pytest
from flwr.app import ArrayRecord, MessageType, MetricRecord

from fl_common.errors import RejectedReply
from fl_common.messages.arrays import Signature
from strategies.replies import REASONS, admit, mean_metrics
from tests.support.strategy_messages import failed, reply

MODEL = {"w": np.ones((2, 2), np.float32), "n": np.array(1)}
SIGNATURE = Signature.of(MODEL)


def two_records():
    message = reply(MODEL)
    message.content["more"] = MetricRecord({"num-examples": 1})
    return message


BAD = {
    "an error": (failed("ValueError: no"), "error", "ValueError: no"),
    "no arrays": (reply(None), "empty", "arrays"),
    "an empty record": (reply(ArrayRecord()), "empty", "arrays"),
    "a wrong name": (reply({"v": MODEL["w"], "n": MODEL["n"]}), "name", "missing w; not of this model v"),
    "a wrong shape": (reply(MODEL | {"w": np.ones(4, np.float32)}), "shape", "expected (2, 2); got (4,)"),
    "a wrong dtype": (reply(MODEL | {"w": np.ones((2, 2))}), "dtype", "expected float32; got float64"),
    "a NaN": (reply(MODEL | {"w": np.full((2, 2), np.nan, np.float32)}), "not-finite", "w"),
    "no weight": (reply(MODEL, None), "weight", "num-examples"),
    "a weight of zero": (reply(MODEL, 0), "weight", "got 0"),
    "a negative weight": (reply(MODEL, -3), "weight", "got -3"),
    "an absurd weight": (reply(MODEL, 10**9), "weight", "got 1000000000"),
    "a weight of NaN": (reply(MODEL, float("nan")), "weight", "got nan"),
    "an infinite weight": (reply(MODEL, float("inf")), "weight", "got inf"),
    "a list for a metric": (reply(MODEL, loss=[1.0, 2.0]), "metrics", "loss"),
    "a metric for every day": (reply(MODEL, **{f"m{day}": 0.0 for day in range(2000)}), "metrics", "at most 1000"),
    "a metric that writes on a terminal": (reply(MODEL, **{"\x1b[2K": 0.0}), "metrics", r"\x1b[2K"),
    "a metric with a story for a name": (reply(MODEL, **{"m" * 5000: 0.0}), "metrics", "the name of a metric"),
    "two records of metrics": (two_records(), "malformed", "one record of metrics"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_reply_is_rejected_with_its_reason(what):
    message, reason, detail = BAD[what]
    with pytest.raises(RejectedReply) as caught:
        admit(message, SIGNATURE)
    assert caught.value.reason == reason
    assert reason in REASONS
    assert detail in caught.value.detail


def test_a_good_reply_gives_arrays_weight_and_metrics():
    good = admit(reply(MODEL, 12, node=5, loss=0.5, steps=3), SIGNATURE)
    assert (good.node, good.weight, good.metrics) == (5, 12.0, {"loss": 0.5, "steps": 3.0})
    assert list(good.arrays) == ["w", "n"]


def test_an_evaluation_needs_no_arrays_and_may_have_no_examples():
    assert admit(reply(None, 0, kind=MessageType.EVALUATE), None).weight == 0
    with pytest.raises(RejectedReply, match="weight"):
        admit(reply(None, -1, kind=MessageType.EVALUATE), None)


def test_metrics_are_weighted_by_examples_and_only_the_common_ones_are_kept():
    assert dict(mean_metrics([(1, {"loss": 1.0, "mine": 2.0}), (3, {"loss": 5.0})])) == {"loss": 4.0}


def test_a_clients_nan_does_not_spoil_the_mean_of_the_others():
    pairs = [(1, {"loss": float("nan"), "auc": float("nan")}), (3, {"loss": 5.0, "auc": float("nan")})]
    assert dict(mean_metrics(pairs)) == {"loss": 5.0}


def test_the_order_of_replies_does_not_show_in_the_metrics():
    pairs = [(7.0, {"loss": 0.1}), (3.0, {"loss": 1e9}), (11.0, {"loss": -1e9 / 7})]
    assert dict(mean_metrics(pairs)) == dict(mean_metrics(pairs[::-1]))


def test_finite_numbers_beyond_any_model_end_no_run_and_count_for_nothing():
    huge = [(10_000_000, {"loss": 1.7e308}), (10_000_000, {"loss": -1.7e308}), (3.0, {"loss": 2.0})]
    assert dict(mean_metrics(huge)) == {"loss": 2.0}
    assert dict(mean_metrics(huge[:2])) == {}
    largest = 3.4028234663852886e38
    assert dict(mean_metrics([(10_000_000, {"loss": largest})] * 3)) == {"loss": pytest.approx(largest)}
