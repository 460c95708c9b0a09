"""Label selectors, as Kubernetes reads them."""

import pytest

from fl_common.errors import SettingsError
from fl_common.settings.label_selectors import parse

BERLIN = {"site": "berlin", "tier": "prod", "gpu": ""}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("", True),
        ("site=berlin", True),
        ("site==berlin", True),
        (" site = berlin , tier = prod ", True),
        ("site=bonn", False),
        ("site=berlin,tier=test", False),
        ("site!=bonn", True),
        ("site!=berlin", False),
        ("floor!=3", True),  # who has no such label is not on floor 3
        ("floor=3", False),
        ("site in (bonn, berlin)", True),
        ("site in (bonn)", False),
        ("site notin (bonn,ulm),tier=prod", True),
        ("floor notin (3)", True),
        ("gpu", True),
        ("!gpu", False),
        ("! floor", True),
        ("gpu=", True),
        ("example.org/site=berlin", False),
        ("in=1", False),
    ],
)
def test_a_selector_fits_or_does_not(text, fits):
    assert parse(text)(BERLIN) is fits


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("site=", None),
        ("=berlin", "=berlin"),
        ("site=a b", "site=a b"),
        ("a,,b", ""),
        ("a,", ""),
        ("site in berlin", "site in berlin"),
        ("site in ()", "site in ()"),
        ("site in (a", "site in (a"),
        ("site => 3", "site => 3"),
        ("-site", "-site"),
        ("in", "in"),
    ],
)
def test_what_is_no_selector_is_an_error_that_names_the_term_and_the_forms(text, term):
    if term is None:
        parse(text)
        return
    with pytest.raises(SettingsError) as caught:
        parse(text)
    assert f"got the term {term!r}" in str(caught.value)
    assert "key in (a, b)" in str(caught.value)
