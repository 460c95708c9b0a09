"""Ranges of metrics: what fits, what does not, and what is no range."""

from math import inf, nan

import pytest

from fl_common.errors import SettingsError
from fl_common.settings.metric_ranges import outside, parse


def test_ranges_are_read_with_open_ends():
    assert parse("loss=0:100, accuracy=0:1") == {"loss": (0, 100), "accuracy": (0, 1)}
    assert parse("loss=0:,mae=:5,any=:") == {"loss": (0, inf), "mae": (-inf, 5), "any": (-inf, inf)}
    assert parse("") == {}


@pytest.mark.parametrize(
    "text", ["loss", "loss=1", "=0:1", "loss=2:1", "loss=a:b", "loss=0:nan", "loss=0:1,,", "loss=0:1:2"]
)
def test_what_is_no_range_is_an_error_that_shows_one(text):
    with pytest.raises(SettingsError, match=r"name=lowest:highest.*loss=0:100"):
        parse(text)


def test_a_metric_is_told_that_lies_outside_of_its_range_or_is_not_a_number():
    ranges = parse("loss=0:100")
    assert outside({"loss": 0.0, "accuracy": 7.0}, ranges) is None
    assert outside({"accuracy": 7.0}, ranges) is None
    assert outside({"loss": -1.0}, ranges) == "loss: expected a number from 0 to 100; got -1"
    assert "got nan" in outside({"loss": nan}, ranges)
    assert outside({"loss": inf}, ranges)
