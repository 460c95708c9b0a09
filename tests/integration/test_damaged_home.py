"""`fl server` in a home of which one file after the other was damaged: it starts, or ends with one sentence."""

import shutil
import subprocess
from pathlib import Path

import pytest

from fl_server.processes.listening import free_ports
from tests.integration.conftest import FL, Start, stop, until
from tests.support.fleet import Fleet

WAYS = {"noise": b"\xff\xfe\0noise" * 200}  # others: tests/server/access/test_damaged_home.py
REFUSED = {  # what is said, and the command
    ("ca.key", "noise"): "--new-ca",
    ("clients.db", "noise"): "clients.db*",
    ("control.credential", "noise"): "rm ",
    ("state.db", "noise"): "state.db*",
}


def ended_well(server: "subprocess.Popen[str]", log: Path) -> bool:
    until(lambda: "server is up" in log.read_text() or server.poll() is not None, "a start or an end")
    return server.poll() is None and stop(server) == 0


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_any_file_of_the_home_is_put_right_or_refused_with_the_command(start: Start, tmp_path: Path, way: str) -> None:
    fleet = Fleet(start, tmp_path)
    assert stop(fleet.server) == 0
    home = fleet.store / ".superlink"
    for path in home.glob("state.db-*"):  # what they hold is in the file: a copy of it that stands alone can be read
        path.unlink()
    files = [path.relative_to(home) for path in home.rglob("*") if path.is_file()]
    assert len(files) > 12
    for number, file in enumerate(files):
        store = shutil.copytree(fleet.store, tmp_path / "copy")
        damaged = store / ".superlink" / file
        damaged.write_bytes(WAYS[way])
        name = f"copy-{number}.log"
        ports = zip(("--fleet-port", "--control-port", "--appio-port"), map(str, free_ports(3)), strict=True)
        server = start(FL, "server", "--store", str(store), *(each for pair in ports for each in pair), log=name)
        up = ended_well(server, tmp_path / name)
        text = (tmp_path / name).read_text()
        command = REFUSED.get((str(file), way))
        assert "Traceback" not in text, (file, text)
        assert up == (command is None), (file, text)
        assert command is None or (text.startswith("error: ") and command in text)
        shutil.rmtree(store)
