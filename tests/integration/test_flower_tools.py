"""Flower's own commands on this repository: `flwr run`, `flwr ls`, stock supernodes beside our resident clients."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fl_server.superlink import free_ports
from tests.integration.conftest import FL, Start, environment, until

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]


def flwr(home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(BIN / "flwr"), *arguments], capture_output=True, text=True, timeout=300, cwd=ROOT, check=False,
        env=environment(FLWR_HOME=str(home), PATH=f"{BIN}:/usr/bin:/bin"),
    )  # fmt: skip


@pytest.mark.slow
def test_flwr_run_trains_on_a_stock_superlink_with_a_mixed_fleet(tmp_path: Path, start: Start) -> None:
    fleet, control, appio, clientappio = free_ports(4)
    homes = {name: tmp_path / name for name in ("link", "node", "cli")}
    for home in homes.values():
        home.mkdir()
    path = f"{BIN}:/usr/bin:/bin"
    start(
        str(BIN / "flower-superlink"), "--insecure", "--disable-runtime-dependency-installation",
        "--fleet-api-address", f"127.0.0.1:{fleet}", "--control-api-address", f"127.0.0.1:{control}",
        "--serverappio-api-address", f"127.0.0.1:{appio}", FLWR_HOME=str(homes["link"]), PATH=path,
    )  # fmt: skip
    start(
        str(BIN / "flower-supernode"), "--insecure", "--superlink", f"127.0.0.1:{fleet}",
        "--clientappio-api-address", f"127.0.0.1:{clientappio}", FLWR_HOME=str(homes["node"]), PATH=path,
    )  # fmt: skip
    resident = start(FL, "client", "--insecure", "--server", f"127.0.0.1:{fleet}", log="resident.log")
    until(lambda: "joined" in (tmp_path / "resident.log").read_text(), "the resident client", resident)
    (homes["cli"] / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{control}"\ninsecure = true\n'
    )

    done = flwr(homes["cli"], "run", ".", "here", "--stream", "--run-config", f"rounds=2 store='{tmp_path}/runs'")
    assert done.returncode == 0, done.stdout + done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"event"')]
    assert [event["cohort"] for event in events if event["event"] == "round"] == [2, 2]
    assert [event["replies"] for event in events if event["event"] == "round"] == [2, 2]
    assert events[-1]["event"] == "finished"

    listed = json.loads(flwr(homes["cli"], "ls", "here", "--format", "json").stdout)
    assert [run["status"] for run in listed["runs"]] == ["finished:completed"]
    run_id = str(listed["runs"][0]["run-id"])
    assert '{"event": "finished"' in flwr(homes["cli"], "log", run_id, "here", "--show").stdout

    begun = flwr(homes["cli"], "run", ".", "here", "--run-config", f"rounds=500 store='{tmp_path}/runs'")
    assert begun.returncode == 0, begun.stdout + begun.stderr
    second = next(str(run["run-id"]) for run in runs(homes["cli"]) if str(run["run-id"]) != run_id)
    stopped = flwr(homes["cli"], "stop", second, "here")
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert any(run["status"] == "finished:stopped" for run in runs(homes["cli"]))


def runs(home: Path) -> list[dict[str, str]]:
    return list(json.loads(flwr(home, "ls", "here", "--format", "json").stdout)["runs"])
