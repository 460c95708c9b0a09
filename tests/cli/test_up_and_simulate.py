"""`fl simulate` is `fl up` without processes: the same options and settings, but for those that are listed here."""

import runpy
from pathlib import Path

import click
import pytest
import typer

from fl_cli.main import register
from fl_common.errors import SettingsError
from fl_common.settings.schema import Settings
from fl_simulation import population

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "simulate.md"
GROUPS = runpy.run_path(str(PAGE.parents[1] / "make_reference.py"))["groups"]()
OF_A_SIMULATION = ("Simulation", "Hostile clients of a simulation", "A simulated fleet")

NO_CLIENTS = "simulated clients have shares of one data set"
ONLY_UP = {
    "insecure": "there is no connection to be secured",
    **{"data": NO_CLIENTS, "label": NO_CLIENTS, "ignore": NO_CLIENTS},
}
OTHER_DEFAULT = {"clients": "a process is dear, a simulated client is not"}
REFUSED_BY_UP = {  # with the value that is tried
    "hostile": 0.5, "label_noise": 0.1, "fleet_speed": 1.0, "fleet_speed_spread": 1.0, "fleet_download": 1.0,
    "fleet_upload": 1.0, "fleet_network_spread": 1.0, "fleet_latency": 1.0, "fleet_dropout": 0.1, "fleet_peak": 0.5,
    "fleet_trough": 0.5, "fleet_zones": 1.0,
}  # fmt: skip
REFUSED_WITHOUT_HOSTILE = ("attack", "attack_scale")
WITHOUT_EFFECT_IN_UP = ("engine", "workers", "memory_gb")  # how fast, not what comes of it
REFUSED_BY_SIMULATE = {"where": "site=berlin"}
WITHOUT_EFFECT_IN_SIMULATE = ("max_reply_mb",)  # no reply travels
ONLY_IN_A_FLEET = ("wait_seconds", "deadline_seconds", "evaluate_deadline_seconds")  # else no time passes


def options(command: str) -> dict[str, click.Option]:
    group = typer.main.get_command(register(("up", "simulate")))
    return {each.name: each for each in group.commands[command].params if isinstance(each, click.Option)}


def test_both_commands_take_the_same_options():
    up, simulate = options("up"), options("simulate")
    assert up.keys() - simulate.keys() == ONLY_UP.keys()
    assert simulate.keys() <= up.keys()
    for name in simulate.keys() - OTHER_DEFAULT.keys():
        for part in ("opts", "help", "default", "envvar", "multiple", "required", "metavar"):
            assert getattr(simulate[name], part) == getattr(up[name], part), name
        assert simulate[name].type.name == up[name].type.name
    assert all(simulate[name].opts == up[name].opts for name in OTHER_DEFAULT)


def test_every_setting_of_a_simulation_is_refused_by_a_deployed_run_or_changes_nothing_there():
    named = {field for group, fields in GROUPS if group in OF_A_SIMULATION for field in fields}
    assert named == {*REFUSED_BY_UP, *REFUSED_WITHOUT_HOSTILE, *WITHOUT_EFFECT_IN_UP}
    for name, value in REFUSED_BY_UP.items():
        with pytest.raises(SettingsError, match=f"^{name} can only be simulated"):
            Settings(**{name: value}).check_deployable()


@pytest.mark.parametrize("name", REFUSED_BY_SIMULATE)
def test_what_only_a_deployed_run_can_obey_is_refused_by_a_simulation(name: str):
    settings = Settings(**{name: REFUSED_BY_SIMULATE[name]})
    settings.check_deployable()
    with pytest.raises(SettingsError, match=f"^{name}=.* simulated clients do not have"):
        population.check(settings, 4, "--clients")


def test_the_page_on_simulation_names_every_difference():
    told = PAGE.read_text().partition("## Beside `fl up`")[2].partition("\n## ")[0]
    names = [*ONLY_UP, *WITHOUT_EFFECT_IN_UP, *REFUSED_BY_SIMULATE, *WITHOUT_EFFECT_IN_SIMULATE, *ONLY_IN_A_FLEET]
    assert [name for name in names if name not in told] == []
    assert all(f"`{name}" in told for name in ("hostile", "label_noise", "fleet_", "attack"))
