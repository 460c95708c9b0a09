"""Text from outside is shown as it is where it is harmless, and spelled out where it is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_common.trust.untrusted_text import clean


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Zoë's dense_1/kernel: 3 µs, 数字 😀", "Zoë's dense_1/kernel: 3 µs, 数字 😀"),
        ("\x1b]0;owned\x07\x1b[2Kall is well", r"\x1b]0;owned\x07\x1b[2Kall is well"),
        ("done\nfinished: accuracy 1.0", r"done\nfinished: accuracy 1.0"),
        ("over\rwritten", r"over\rwritten"),
        ("a\u202egnp.exe", r"a\u202egnp.exe"),
        ("\ud800", r"\ud800"),
        ("next\u2028line\u0085too", r"next\u2028line\x85too"),
        ("a\tb\u00a0c", "a b c"),
        (None, "None"),
    ],
)
def test_what_steers_a_terminal_or_cannot_be_encoded_is_spelled_out(text, shown):
    assert clean(text) == shown


@given(st.text(st.characters(), max_size=700), st.booleans())
def test_any_text_can_be_encoded_and_stays_on_its_lines(text, lines):
    shown = clean(text, most=600, lines=lines)
    shown.encode()
    assert shown.replace("\n", "").isprintable()
    assert lines or "\n" not in shown
    assert shown.count("\n") <= text.count("\n")


def test_what_is_too_long_is_cut_before_it_is_looked_at():
    assert clean("a" * 100_000_000, most=5) == "aaaa…"
