"""What holds for every test."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# No clock decides, and a commit passes or fails alike everywhere; `--hypothesis-profile random` looks further.
settings.register_profile("random", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("alike", settings.get_profile("random"), derandomize=True)
settings.load_profile("alike")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Iterator[None]:
    """Spell out what no encoding takes in captured output: a worker could not send it, and would take all down."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(autouse=True, scope="session")
def _own_run_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests make the key of their runs in a folder of their own, not in the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FL_RUN_KEY", str(tmp_path_factory.mktemp("key") / "run.key"))
        yield
