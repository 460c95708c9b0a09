"""Tests of fl_simulation keep their cache apart from the user's."""

import pytest


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
