"""Settings: four sources in their order, and errors that say what was expected, what came and what to do."""

import json
import string

import pytest
import tomli_w
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from fl_common.errors import SettingsError
from fl_common.settings.schema import Settings, from_environment, load, parse, read_toml


@pytest.fixture
def toml(tmp_path):
    def write(text: str):
        path = tmp_path / "settings.toml"
        path.write_text(text)
        return path

    return write


def test_later_sources_win(toml):
    path = toml("rounds = 2\nseed = 2\nbatch_size = 2\nmu = 2.0\n")
    found = load(
        toml=path,
        environment={"FL_SEED": "3", "FL_BATCH_SIZE": "3", "FL_MU": "3"},
        flags={"batch_size": 4, "mu": 4.0, "rounds": None},
        assign=["mu=5"],
    )
    assert (found.rounds, found.seed, found.batch_size, found.mu) == (2, 3, 4, 5.0)
    assert found.local_epochs == Settings().local_epochs


def test_without_sources_everything_has_its_default():
    assert load(environment={}) == Settings()
    assert Settings().difference() == {}


def test_keys_may_be_written_with_dashes(toml):
    assert parse({"batch-size": 8}).batch_size == 8
    assert load(toml=toml("local-epochs = 3\n"), environment={}, assign=["learning-rate=0.5"]).difference() == {
        "local_epochs": 3,
        "learning_rate": 0.5,
    }


def test_texts_are_read_as_the_fields_type():
    found = parse({"rounds": "7", "fraction": "0.5", "tensorboard": "false", "task": "mnist"})
    assert (found.rounds, found.fraction, found.tensorboard, found.task) == (7, 0.5, False, "mnist")


def test_variables_of_commands_are_not_settings():
    assert from_environment({"FL_ROUNDS": "5", "FL_SERVER": "a:1", "FL_CACHE": "/x", "rounds": "6"}) == {"rounds": "5"}


def test_the_process_environment_is_read(monkeypatch):
    monkeypatch.setenv("FL_PATIENCE", "4")
    assert load().patience == 4


@pytest.mark.parametrize("key", ["round", "Rounds", "batch_sise", "local-epoch", "min_client", "target_acuracy"])
def test_an_unknown_key_names_the_nearest(key):
    nearest = {"round": "rounds", "Rounds": "rounds", "batch_sise": "batch_size", "local-epoch": "local_epochs"}
    nearest |= {"min_client": "min_clients", "target_acuracy": "target_accuracy"}
    with pytest.raises(SettingsError, match=rf"Did you mean {nearest[key]}\?"):
        parse({key: 1})


def test_a_key_like_no_other_lists_them_all():
    with pytest.raises(SettingsError) as caught:
        parse({"zzzzz": 1}, source="the run config")
    assert "unknown setting 'zzzzz' in the run config" in str(caught.value)
    assert all(name in str(caught.value) for name in Settings.model_fields)


BAD = [
    ("rounds", 0, "greater than or equal to 1"),
    ("rounds", "many", "valid integer"),
    ("rounds", 2.5, "valid integer"),
    ("fraction", 0, "greater than 0"),
    ("fraction", 1.5, "less than or equal to 1"),
    ("fraction", "nan", "got 'nan'"),
    ("validation_fraction", 1, "less than 1"),
    ("learning_rate", -0.1, "greater than or equal to 0"),
    ("seed", -1, "greater than or equal to 0"),
    ("seed", 2**31, "less than"),
    ("partitioning", "random", "'iid', 'dirichlet'"),
    ("tensorboard", "perhaps", "valid boolean"),
    ("deadline_seconds", 0, "greater than 0"),
    ("beta_1", 1.0, "less than 1"),
    ("tau", 0, "greater than 0"),
    ("keep", 0, "greater than or equal to 1"),
    ("strategy_args", "[1]", "JSON object"),
    ("strategy_args", "{", "JSON object"),
]


@pytest.mark.parametrize(("key", "value", "expected"), BAD)
def test_a_value_out_of_range_says_what_was_expected_and_what_came(key, value, expected):
    with pytest.raises(SettingsError) as caught:
        parse({key: value})
    message = str(caught.value)
    assert key in message
    assert expected in message
    assert "\n" not in message


@pytest.mark.parametrize("value", [float("inf"), float("nan"), float("-inf")])
@pytest.mark.parametrize(
    "key", [name for name, each in Settings.model_fields.items() if each.annotation is float or name == "fraction"]
)
def test_no_number_may_be_infinite_or_none(key, value):
    with pytest.raises(SettingsError, match=key):
        parse({key: value})


def test_the_message_says_how_to_set_it():
    with pytest.raises(SettingsError, match=r"fraction: .*; got '1.5'. Set it with --set fraction="):
        parse({"fraction": "1.5"})


def test_every_bad_value_is_named_at_once():
    with pytest.raises(SettingsError, match=r"seed: .*; rounds: .*"):
        parse({"rounds": 0, "seed": -1})


def test_more_clients_than_partitions_is_an_error():
    with pytest.raises(SettingsError, match=r"min_clients must be at most partitions \(2\); got 3"):
        parse({"partitions": 2, "min_clients": 3})
    assert parse({"partitions": 0, "min_clients": 3}).min_clients == 3
    assert parse({"partitions": 3, "min_clients": 3}).partitions == 3


def test_natural_partitioning_needs_a_column():
    with pytest.raises(SettingsError, match="id_column"):
        parse({"partitioning": "natural"})


def test_arguments_of_the_strategy_are_gathered():
    found = parse({"strategy.eta": "0.5", "strategy.name": "x", "strategy_args": '{"eta": 1, "tau": 2}'})
    assert found.strategy_arguments() == {"eta": 0.5, "name": "x", "tau": 2}


@pytest.mark.parametrize("value", ["{", "[1]", "3", 3])
def test_arguments_cannot_be_added_to_what_is_no_object(value):
    with pytest.raises(SettingsError, match="strategy_args must be a JSON object"):
        parse({"strategy.eta": 1, "strategy_args": value})


def test_a_toml_table_holds_the_strategys_arguments(toml):
    path = toml('strategy = "a:B"\n[strategy_arguments]\neta = 0.5\nflag = true\n')
    assert load(toml=path, environment={}).strategy_arguments() == {"eta": 0.5, "flag": True}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rounds = ", "cannot be read as TOML"),
        ("[rounds]\na = 1\n", "rounds"),
        ("[other]\na = 1\n", "unknown setting 'other'"),
        ("strategy_arguments = 3\n", "strategy_arguments"),
        ('[strategy]\nname = "fedavg"\n', "strategy"),
    ],
)
def test_a_bad_toml_file_is_a_settings_error(toml, text, expected):
    with pytest.raises(SettingsError, match=expected):
        load(toml=toml(text), environment={})


def test_a_toml_file_must_exist_and_be_text(tmp_path):
    with pytest.raises(SettingsError, match="does not exist"):
        read_toml(tmp_path / "missing.toml")
    with pytest.raises(SettingsError, match="cannot be read"):
        read_toml(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="cannot be read"):
        read_toml(tmp_path / "binary.toml")


@pytest.mark.parametrize("text", ["rounds", "=3", " = 3", ""])
def test_an_assignment_needs_a_key_and_a_value(text):
    with pytest.raises(SettingsError, match="key=value"):
        load(environment={}, assign=[text])


def test_an_assignment_may_hold_an_equals_sign_and_spaces():
    found = load(environment={}, assign=["data_dir= /a=b ", 'strategy_args={"a": "b=c"}'])
    assert (found.data_dir, found.strategy_arguments()) == ("/a=b", {"a": "b=c"})


def test_settings_cannot_be_changed():
    with pytest.raises(Exception, match="frozen"):
        Settings().rounds = 3


text = st.text(string.ascii_letters + string.digits + "_-./ äé\"'\\", max_size=12)
numbers = {"allow_nan": False, "allow_infinity": False}
VALUES = {
    "task": text,
    "data_dir": text,
    "seed": st.integers(0, 2**31 - 1),
    "partitioning": st.sampled_from(["iid", "dirichlet", "shards", "power_law"]),
    "alpha": st.floats(1e-9, 1e9, **numbers),
    "validation_fraction": st.floats(0, 1, exclude_max=True),
    "local_epochs": st.integers(1, 10**9),
    "learning_rate": st.floats(0, 1e9, **numbers),
    "strategy_args": st.dictionaries(text, st.integers() | text, max_size=2).map(json.dumps),
    "fraction": st.floats(0, 1, exclude_min=True),
    "min_clients": st.integers(1, 100),
    "partitions": st.just(0) | st.integers(100, 1000),
    "wait_seconds": st.floats(0, 1e9),
    "resume": st.booleans(),
    "tensorboard": st.booleans(),
}
any_settings = st.fixed_dictionaries({}, optional=VALUES).map(lambda values: Settings(**values))


@profile(max_examples=60, deadline=None)
@given(any_settings)
def test_settings_come_back_from_flowers_run_config(original):
    config = original.run_config()
    assert all(isinstance(value, bool | int | float | str) for value in config.values())
    assert parse(config) == original
    assert parse({key.replace("_", "-"): value for key, value in config.items()}) == original


@profile(max_examples=40, deadline=None)
@given(any_settings)
def test_settings_come_back_from_toml(tmp_path_factory, original):
    path = tmp_path_factory.getbasetemp() / "round-trip.toml"
    path.write_text(tomli_w.dumps(original.model_dump()))
    assert load(toml=path, environment={}) == original


@profile(max_examples=40, deadline=None)
@given(any_settings)
def test_settings_come_back_from_the_environment(original):
    variables = {f"FL_{key.upper()}": str(value) for key, value in original.run_config().items()}
    assert load(environment=variables) == original
