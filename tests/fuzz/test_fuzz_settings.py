"""Settings of any kind are read, or refused with an error for a person; never anything else."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fl_common.errors import SettingsError
from fl_common.settings import schema as settings_
from fl_common.settings.schema import Settings
from tests.fuzz import EXAMPLES

FIELDS = list(Settings.model_fields)
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12), st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2), st.binary(max_size=4),
)  # fmt: skip
KEYS = st.one_of(
    st.sampled_from(FIELDS),
    st.sampled_from(FIELDS).map(lambda name: name.replace("_", "-")),
    st.text(max_size=8),
    st.text(max_size=6).map(lambda name: f"strategy.{name}"),
)
TEXTS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["{}", "[1]", '{"a": 1}', "nan", "inf", "1e999", "site=berlin", "loss=0:1", "f1:max", "a in (b", "!="]
    ),
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_any_values_are_settings_or_refused_in_words(values: dict) -> None:  # type: ignore[type-arg]
    _read_or_refused(lambda: settings_.parse(values))


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), TEXTS, max_size=4))
def test_any_text_of_a_flag_or_a_variable_is_a_setting_or_refused_in_words(values: dict[str, str]) -> None:
    _read_or_refused(lambda: settings_.parse(values))
    environment = {f"FL_{name.upper()}": text for name, text in values.items()}
    _read_or_refused(lambda: settings_.load(environment=environment))


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(st.text(max_size=20), max_size=3))
def test_any_assignment_is_read_or_refused_in_words(texts: list[str]) -> None:
    _read_or_refused(lambda: settings_.load(environment={}, assign=texts))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=80), st.text(max_size=80).map(str.encode)))
def test_any_file_is_read_or_refused_in_words(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "settings.toml"
    path.write_bytes(content)
    _read_or_refused(lambda: settings_.load(toml=path, environment={}))


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_survives_every_kind_of_text(name: str) -> None:
    for text in ("", "-1", "0", "1e999", "nan", "[", "{", "x=y", "💥", "\0", "9" * 400, "a" * 10_000):
        _read_or_refused(lambda text=text: settings_.parse({name: text}))  # type: ignore[misc]


def _read_or_refused(read) -> None:  # type: ignore[no-untyped-def]
    try:
        found = read()
    except SettingsError as error:
        assert str(error)
        return
    assert isinstance(found, Settings)
    assert settings_.parse(found.run_config()) == found
