"""What a client's own data are called: the names and kinds of a table's columns, or the names of its classes.

It travels when a client joins, so that a run can see before its first round whether its clients mean the same.
"""

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

MOST_NAMES = 20_000
LONGEST_NAME = 500
NUMBERS = ("boolean", "integer", "number", "empty")  # kinds that are numbers in x
DIGITS = 32  # of a hash


@dataclass(frozen=True)
class Schema:
    """The names of one client's data. For a table `columns` {name: kind} are x, in this order, and `label` is y.

    `source` are the kinds of the columns before the task's `prepare`, where it has one. `classes` are those of a folder
    of pictures. private: the names are hashes.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    label: str = ""
    source: Mapping[str, str] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    private: bool = False

    def names(self) -> set[str]:
        """Return every name in it."""
        return {*self.columns, self.label, *self.source, *self.classes}

    def hashed(self, salt: bytes) -> "Schema":
        """Return the same with a salted hash in the place of each name."""
        return replace(
            self,
            columns={hashed(name, salt): kind for name, kind in self.columns.items()},
            label=hashed(self.label, salt) if self.label else "",
            source={hashed(name, salt): kind for name, kind in self.source.items()},
            classes=tuple(hashed(name, salt) for name in self.classes),
            private=True,
        )

    def text(self) -> str:
        """Return the schema as JSON."""
        content = {
            "columns": list(self.columns.items()),
            "label": self.label,
            "source": list(self.source.items()),
            "classes": list(self.classes),
            "private": self.private,
        }
        return json.dumps(content, separators=(",", ":"))


def hashed(name: str, salt: bytes) -> str:
    """Return the salted hash of a name."""
    return hmac.new(salt, name.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:DIGITS]


def parse(text: str) -> Schema:
    """Return the schema that a client sent. Raises ValueError where it is none, or too large."""
    content = json.loads(text)
    if not isinstance(content, dict) or not isinstance(content.get("private"), bool):
        raise ValueError("expected a schema")
    classes, label = content.get("classes"), content.get("label")
    if not isinstance(classes, list) or len(classes) > MOST_NAMES or not isinstance(label, str):
        raise ValueError("expected names of classes and of a label")
    return Schema(
        _kinds(content.get("columns")),
        _name(label),
        _kinds(content.get("source")),
        tuple(map(_name, classes)),
        content["private"],
    )


def _kinds(pairs: Any) -> dict[str, str]:
    if not isinstance(pairs, list) or len(pairs) > MOST_NAMES:
        raise ValueError("expected names and kinds of columns")
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise ValueError("expected names and kinds of columns")
    return {_name(name): _name(kind) for name, kind in pairs}


def _name(value: Any) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_NAME:
        raise ValueError(f"expected a name of at most {LONGEST_NAME} characters")
    return value.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class Difference:
    """What one client calls otherwise than the others: in words, and its own names among them."""

    text: str
    own: tuple[str, ...] = ()


def difference(one: Schema, other: Schema) -> Difference | None:
    """Return how `one` differs from `other`; None where they mean the same. The order of columns is no difference."""
    if bool(one.columns) != bool(other.columns) or bool(one.classes) != bool(other.classes):
        return None  # a table and pictures, or arrays: no names to compare
    if one.private != other.private:
        return Difference(
            "it hashes its names (--private-schema), and the others do not"
            if one.private
            else "it sends its names as they are, and the others hash theirs (--private-schema)"
        )
    for found in (_missing(one, other), _label(one, other), _kind(one, other), _classes(one, other)):
        if found is not None:
            return found
    return None


def _missing(one: Schema, other: Schema) -> Difference | None:
    more, less = _without(one.columns, other.columns), _without(other.columns, one.columns)
    words = [f"has {_columns(more)}, which the others lack"] if more else []
    words += [f"lacks {_columns(less)}"] if less else []
    return Difference(f"it {' and '.join(words)}", tuple(more)) if words else None


def _label(one: Schema, other: Schema) -> Difference | None:
    if one.label == other.label:
        return None
    return Difference(f"its label is the column {one.label!r}; the others' is {other.label!r}", (one.label,))


def _kind(one: Schema, other: Schema) -> Difference | None:
    for mine, theirs in ((one.columns, other.columns), (one.source, other.source)):
        for name, kind in mine.items():
            if name in theirs and not _alike(kind, theirs[name]):
                return Difference(
                    f"its column {name!r} holds {_values(kind)}; the others' holds {_values(theirs[name])}", (name,)
                )
    return None


def _classes(one: Schema, other: Schema) -> Difference | None:
    if one.classes == other.classes:
        return None
    more, less = _without(one.classes, other.classes), _without(other.classes, one.classes)
    words = [f"has {_named('class', more)}, which the others lack"] if more else []
    words += [f"lacks {_named('class', less)}"] if less else []
    return Difference(f"it {' and '.join(words)}; an empty folder keeps a class's number", tuple(more))


def _alike(kind: str, other: str) -> bool:
    return kind == other or "empty" in (kind, other) or (kind in NUMBERS and other in NUMBERS)


def _values(kind: str) -> str:
    return f"{kind}s" if kind in ("boolean", "integer", "number", "date") else kind


def _without(names: Iterable[str], others: Iterable[str]) -> list[str]:
    known = set(others)
    return [name for name in names if name not in known]


def _columns(names: list[str]) -> str:
    return _named("column", names)


def _named(what: str, names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    plural = what if len(names) == 1 else {"class": "classes"}.get(what, f"{what}s")
    return f"the {plural} {', '.join(map(repr, names[:most]))}{more}"
