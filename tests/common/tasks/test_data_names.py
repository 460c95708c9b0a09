"""What clients call their data: compared by name, told in words that name the column, hashed where that is wanted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_common.tasks.client_data.data_names import Schema, difference, parse

TABLE = Schema({"age": "number", "dose": "integer", "smokes": "boolean"}, "ill")


def table(**columns):
    return Schema({**TABLE.columns, **columns}, "ill")


def without(name):
    return Schema({key: kind for key, kind in TABLE.columns.items() if key != name}, "ill")


PREPARED = Schema(TABLE.columns, "ill", {"age": "number", "born": "date", "sex": "text", "ill": "text"})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (TABLE, TABLE),
        (Schema(dict(reversed(TABLE.columns.items())), "ill"), TABLE),
        (table(age="integer", smokes="number"), TABLE),
        (Schema(), TABLE),
        (Schema(classes=("cat", "dog")), TABLE),
        (Schema(classes=("cat", "dog")), Schema(classes=("cat", "dog"))),
        (Schema(TABLE.columns, "ill", {**PREPARED.source, "born": "empty", "more": "text"}), PREPARED),
    ],
)
def test_what_means_the_same_differs_in_nothing(one, other):
    assert difference(one, other) is None
    assert difference(other, one) is None
    assert difference(one.hashed(b"salt"), other.hashed(b"salt")) is None


@pytest.mark.parametrize(
    ("one", "other", "words", "own"),
    [
        (table(index="integer"), TABLE, "it has the column 'index', which the others lack", ("index",)),
        (without("dose"), TABLE, "it lacks the column 'dose'", ()),
        (
            Schema({"Age": "number", "dose": "integer", "smokes": "boolean"}, "ill"),
            TABLE,
            "it has the column 'Age', which the others lack and lacks the column 'age'",
            ("Age",),
        ),
        (Schema(TABLE.columns, "sick"), TABLE, "its label is the column 'sick'; the others' is 'ill'", ("sick",)),
        (
            Schema(TABLE.columns, "ill", {**PREPARED.source, "born": "text"}),
            PREPARED,
            "its column 'born' holds text; the others' holds dates",
            ("born",),
        ),
        (
            Schema(classes=("cat", "lion")),
            Schema(classes=("cat", "dog")),
            "it has the class 'lion', which the others lack and lacks the class 'dog'; an empty folder",
            ("lion",),
        ),
        (TABLE.hashed(b""), TABLE, "it hashes its names (--private-schema), and the others do not", ()),
        (TABLE, TABLE.hashed(b""), "it sends its names as they are, and the others hash theirs", ()),
    ],
)
def test_a_difference_names_the_column_or_class_and_what_is_the_clients_own(one, other, words, own):
    found = difference(one, other)
    assert found.text.startswith(words)
    assert found.own == own


def test_hashes_hide_every_name_and_depend_on_the_salt():
    hidden = PREPARED.hashed(b"one")
    assert not any(name in hidden.text() for name in PREPARED.names())
    assert difference(hidden, PREPARED.hashed(b"two")) is not None
    assert hidden.columns.keys() == PREPARED.hashed(b"one").columns.keys()
    (own,) = difference(table(who="integer").hashed(b"s"), TABLE.hashed(b"s")).own
    assert own == next(iter(Schema({"who": "integer"}).hashed(b"s").columns))


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(
    st.builds(
        Schema, st.dictionaries(NAMES, NAMES), NAMES, st.dictionaries(NAMES, NAMES), st.tuples(NAMES), st.booleans()
    )
)
def test_a_schema_is_read_as_it_was_written(schema):
    found = parse(schema.text())
    assert found == schema
    assert list(found.columns) == list(schema.columns)


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", "null", "[" * 100_000, '{"private": true}', '{"private": false, "classes": 3, "label": ""}',
        '{"private": false, "classes": [], "label": "", "columns": [["a"]], "source": []}',
        '{"private": false, "classes": [], "label": "", "columns": {"a": "b"}, "source": []}',
        '{"private": false, "classes": [3], "label": "", "columns": [], "source": []}',
        '{"private": false, "classes": [], "label": "", "columns": [["a", null]], "source": []}',
        '{"private": false, "classes": [], "label": "%s", "columns": [], "source": []}' % ("x" * 501),
        '{"private": false, "classes": %s, "label": "", "columns": [], "source": []}' % (["x"] * 20_001),
    ],
)  # fmt: skip
def test_what_is_no_schema_is_refused(text):
    with pytest.raises((ValueError, RecursionError)):
        parse(text)
