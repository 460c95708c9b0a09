"""What a number of simulated clients means for the settings: defaults, and cohorts that cannot be drawn from it."""

from collections.abc import Mapping

from fl_common.errors import SettingsError
from fl_common.settings.schema import Scalar, Settings

EVALUATING = 100  # clients that evaluate in a round, where nothing else is said


def defaults(clients: int) -> dict[str, Scalar]:
    """Return the settings that a number of simulated clients implies, where nothing else is said."""
    return {"min_clients": clients, "partitions": clients, "fraction_evaluate": min(1.0, EVALUATING / clients)}


def implied(config: Mapping[str, Scalar], clients: int) -> dict[str, Scalar]:
    """Return the defaults for those keys of a run config that are as the app declares them."""
    declared = Settings().run_config()
    return {key: value for key, value in defaults(clients).items() if config.get(key, declared[key]) == declared[key]}


def fitting(settings: Settings, clients: int, flag: str = "--clients") -> Settings:
    """Return the settings, with no round waiting for a whole fleet of which some are always away.

    flag: what the number of clients is called on the command line. Raises SettingsError where a cohort cannot be drawn
    from so many clients.
    """
    check(settings, clients, flag)
    comes_and_goes = min(settings.fleet_peak, settings.fleet_trough) < 1
    if settings.min_clients < clients or not comes_and_goes:
        return settings
    return settings.model_copy(update={"min_clients": max(1, settings.clients_per_round)})


def check(settings: Settings, clients: int, flag: str) -> None:
    """Raise SettingsError where a cohort cannot be drawn from so many clients."""
    if settings.where:
        raise SettingsError(
            f"where={settings.where} asks for labels, which simulated clients do not have. Leave it out."
        )
    for key in ("min_clients", "clients_per_round"):
        if (asked := getattr(settings, key)) > clients:
            raise SettingsError(
                f"{key} must be at most {flag} ({clients}); got {asked}. Ask for fewer, or simulate more clients."
            )
    if not settings.clients_per_round and round(settings.fraction * clients) < 1:
        raise SettingsError(
            f"fraction={settings.fraction:g} of {clients} clients is none. Set it to at least {1 / clients:g}, "
            "or ask for a number with clients_per_round=1"
        )
