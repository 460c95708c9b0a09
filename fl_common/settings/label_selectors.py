"""Label selectors in the style of Kubernetes: `site=berlin,tier!=test,zone in (a, b),gpu`. All terms must hold."""

import re
from collections.abc import Callable, Mapping

from fl_common.errors import SettingsError

Labels = Mapping[str, str]
Matches = Callable[[Labels], bool]

WORD = r"[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?"
EQUALITY = re.compile(rf"(?P<key>{WORD})\s*(?P<sign>==|=|!=)\s*(?P<value>(?:{WORD})?)")
MEMBERSHIP = re.compile(rf"(?P<key>{WORD})\s+(?P<sign>in|notin)\s*\((?P<values>[^()]*)\)")
EXISTENCE = re.compile(rf"(?P<sign>!?)\s*(?P<key>{WORD})")
COMMAS = re.compile(r",(?![^(]*\))")  # those that are not inside brackets
FORMS = "key=value, key!=value, key in (a, b), key notin (a, b), key, !key; several with commas"


def parse(text: str) -> Matches:
    """Return the test for labels that `text` describes; an empty text holds for all.

    As in Kubernetes, `!=` and `notin` hold where there is no such label. Raises SettingsError that names the bad term.
    """
    terms = [_term(term.strip(), text) for term in COMMAS.split(text)] if text.strip() else []
    return lambda labels: all(term(labels) for term in terms)


def _term(term: str, text: str) -> Matches:
    if found := EQUALITY.fullmatch(term):
        return _among(found["key"], {found["value"]}, wanted=found["sign"] != "!=")
    if found := MEMBERSHIP.fullmatch(term):
        values = {value.strip() for value in found["values"].split(",")}
        if all(re.fullmatch(WORD, value) for value in values):
            return _among(found["key"], values, wanted=found["sign"] == "in")
    if (found := EXISTENCE.fullmatch(term)) and term not in ("in", "notin"):
        key, wanted = found["key"], not found["sign"]
        return lambda labels: (key in labels) is wanted
    raise SettingsError(f"where={text!r}: expected {FORMS}; got the term {term!r}. Try --set where='site=berlin'")


def _among(key: str, values: set[str], *, wanted: bool) -> Matches:
    return lambda labels: (labels.get(key) in values) is wanted
