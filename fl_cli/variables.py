"""The environment variables that begin with FL_: which there are, and a sentence for one that is not among them."""

import difflib
from collections.abc import Mapping

from fl_common.errors import SettingsError
from fl_common.settings.schema import ENVIRONMENT_PREFIX, Settings

OF_COMMANDS = (
    *("FL_AUTO_RUN", "FL_CA", "FL_CACHE", "FL_CERTIFICATE", "FL_CONTROL", "FL_CONTROL_CA", "FL_CONTROL_CREDENTIAL"),
    *("FL_DATA", "FL_ENROLL_TOKEN", "FL_ENROLL_TOKEN_FILE", "FL_HOST", "FL_IGNORE", "FL_KEY", "FL_LABEL"),
    *("FL_FORGET_AFTER", "FL_LOST_AFTER", "FL_MAX_RESTARTS", "FL_METRICS_HOST", "FL_METRICS_PORT", "FL_NO_PROXY"),
    *("FL_PRIVATE_SCHEMA", "FL_PULSE", "FL_RUN_KEY", "FL_SCHEMA_SECRET", "FL_SERVER", "FL_SERVER_NAMES"),
    *("FL_STATE", "FL_STATES", "FL_STORE"),
)
OF_PROCESSES = ("FL_HOME_DIR", "FL_RUN_TRUSTED")  # one process of ours tells another
NEAREST = 3


def known() -> set[str]:
    """Return every variable that means something: of commands, and `FL_<SETTING>` for every setting."""
    return {*OF_COMMANDS, *OF_PROCESSES, *(f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in Settings.model_fields)}


def check(environment: Mapping[str, str]) -> None:
    """Raise SettingsError for a variable that begins with FL_ and means nothing, with the nearest that do."""
    names = known()
    unknown = sorted(name for name in environment if name.startswith(ENVIRONMENT_PREFIX) and name not in names)
    if unknown:
        raise SettingsError("; ".join(_unknown(name, names) for name in unknown))


def _unknown(name: str, names: set[str]) -> str:
    near = difflib.get_close_matches(name, sorted(names), n=NEAREST, cutoff=0.6)
    hint = f"Did you mean {' or '.join(near)}?" if near else "docs/reference/settings.md has those that are."
    return f"the environment variable {name} is none of Parterre's. {hint} Unset it where it is another program's."
