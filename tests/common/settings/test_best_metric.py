"""keep_best: by which metric one round is better than another."""

import pytest

from fl_common.errors import SettingsError
from fl_common.settings import best_metric
from fl_common.settings.schema import Settings, parse

EVENT = {"event": "round", "loss": 0.5, "accuracy": 0.9, "metrics": {"f1": 0.25, "name": "x"}}


@pytest.mark.parametrize(
    ("text", "value"),
    [("loss", 0.5), ("accuracy", -0.9), ("f1:max", -0.25), ("f1:min", 0.25), ("accuracy:min", 0.9), ("gone:max", None),
     ("name:max", None)],
)  # fmt: skip
def test_a_lower_value_is_a_better_round(text, value):
    found = best_metric.parse(text)
    assert found is not None
    assert found.of(EVENT) == value


def test_a_loss_that_diverged_is_no_value():
    assert best_metric.parse("loss").of({"loss": None}) is None


def test_no_metric_is_no_measure():
    assert best_metric.parse("") is None


@pytest.mark.parametrize("text", ["gini", "gini:up", ":max", "loss:"])
def test_a_metric_without_its_direction_is_an_error_that_says_how(text):
    if text == "loss:":
        assert best_metric.parse(text) == best_metric.parse("loss")
        return
    with pytest.raises(SettingsError, match=r"expected loss, accuracy, or a metric with its direction.*:max"):
        parse({"keep_best": text})


def test_the_default_keeps_the_lowest_loss():
    assert Settings().measure_kept() == best_metric.Measure("loss", higher=False)


@pytest.mark.parametrize(
    ("name", "higher"),
    [("acc", True), ("binary_accuracy", True), ("auc", True), ("auc_1", True), ("digit_accuracy", True),
     ("mae", False), ("sex_loss", False), ("mean_absolute_error", False), ("root_mean_squared_error", False)],
)  # fmt: skip
def test_the_direction_of_kerass_own_metrics_is_known(name, higher):
    assert best_metric.parse(name) == best_metric.Measure(name, higher)


def test_one_setting_names_the_metric_that_counts():
    settings = parse({"metric": "auc", "target_accuracy": "0.9", "patience": "3"})
    assert (
        settings.measure_counted()
        == settings.measure_of_target()
        == settings.measure_kept()
        == best_metric.Measure("auc", True)
    )
    assert parse({"metric": "auc", "keep_best": "loss"}).measure_kept() == best_metric.LOSS
    assert parse({"metric": "auc", "keep_best": ""}).measure_kept() is None
    assert Settings().measure_of_target() == best_metric.ACCURACY
    with pytest.raises(SettingsError, match=r"metric='gini': expected .*--set metric=gini:max"):
        parse({"metric": "gini"})
    with pytest.raises(SettingsError, match=r"at most 1 where it is an accuracy; got 3.*--set metric=NAME"):
        parse({"target_accuracy": "3"})
