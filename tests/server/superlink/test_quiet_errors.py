"""No error of the SuperLink's database quotes a token, whatever goes wrong with it."""

import traceback
from pathlib import Path

import pytest
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.supercore import sql_mixin

from fl_server.superlink.fleet import patches
from tests.server.superlink.test_database import Link

SECRET = "deadbeef" * 4


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SqlLinkState:
    for name in ("create_engine", "log"):
        monkeypatch.setattr(sql_mixin, name, getattr(sql_mixin, name))  # put back after the test
    patches.keep_values_out_of_errors()
    return Link(tmp_path / "state.db").state  # type: ignore[no-any-return]


@pytest.mark.parametrize("damage", ["closed", "gone", "no such table"])
def test_an_error_of_the_database_does_not_quote_a_token(
    state: SqlLinkState, damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if damage == "no such table":
        state.query("DROP TABLE task")
    else:
        state._engine.dispose()
        (tmp_path / "state.db").unlink()
        if damage == "closed":
            (tmp_path / "state.db").mkdir()
    try:
        state.query("SELECT * FROM task WHERE token = :token", {"token": SECRET})
    except Exception:
        said = traceback.format_exc()
        assert "SELECT * FROM task" in said or "unable to open" in said
        assert "SELECT * FROM task" in caplog.text
        assert SECRET not in said + caplog.text
    else:
        pytest.fail("it went well")
