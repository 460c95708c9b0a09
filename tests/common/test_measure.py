"""keep_best: by which metric one round is better than another."""

import pytest

from fl_common import measure
from fl_common.errors import SettingsError
from fl_common.settings import Settings, parse

EVENT = {"event": "round", "loss": 0.5, "accuracy": 0.9, "metrics": {"f1": 0.25, "name": "x"}}


@pytest.mark.parametrize(
    ("text", "value"),
    [("loss", 0.5), ("accuracy", -0.9), ("f1:max", -0.25), ("f1:min", 0.25), ("accuracy:min", 0.9), ("gone:max", None),
     ("name:max", None)],
)  # fmt: skip
def test_a_lower_value_is_a_better_round(text, value):
    found = measure.parse(text)
    assert found is not None
    assert found.of(EVENT) == value


def test_a_loss_that_diverged_is_no_value():
    assert measure.parse("loss").of({"loss": None}) is None


def test_no_metric_is_no_measure():
    assert measure.parse("") is None


@pytest.mark.parametrize("text", ["f1", "f1:up", ":max", "loss:"])
def test_a_metric_without_its_direction_is_an_error_that_says_how(text):
    if text == "loss:":
        assert measure.parse(text) == measure.parse("loss")
        return
    with pytest.raises(SettingsError, match=r"expected loss, accuracy, or a metric with its direction.*:max"):
        parse({"keep_best": text})


def test_the_default_keeps_the_lowest_loss():
    assert measure.parse(Settings().keep_best) == measure.Measure("loss", higher=False)
