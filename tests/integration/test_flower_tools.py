"""Flower's own commands on this repository: `flwr run`, `flwr ls`, stock supernodes beside our resident clients."""

import json
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from fl_server.processes.listening import free_ports
from tests.integration.conftest import FL, Start, descendants, environment, stop, until
from tests.integration.test_secrets import EVIL
from tests.support.fleet import Fleet

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]


def flwr(home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(BIN / "flwr"), *arguments], capture_output=True, text=True, timeout=900, cwd=ROOT, check=False,
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


@pytest.mark.slow
def test_flowers_tools_work_on_a_server_with_tls_and_node_authentication(tmp_path: Path, start: Start) -> None:
    fleet, cli = Fleet(start, tmp_path), tmp_path / "cli"
    home = fleet.store / ".superlink"
    prepared(cli, fleet)

    # Two stock supernodes, a key registered by each of the two commands; and a client of ours.
    names = ("by_fl", "by_flwr", "stranger")
    for name in names:
        command = ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", str(tmp_path / name)]
        assert subprocess.run(command, check=False).returncode == 0
    assert fleet.fl("enroll", "key", f"{tmp_path}/by_fl.pub").returncode == 0
    registered = flwr(cli, "supernode", "register", f"{tmp_path}/by_flwr.pub", "here")
    assert registered.returncode == 0, registered.stdout + registered.stderr
    for name in names:
        start(
            str(BIN / "flower-supernode"), "--superlink", f"127.0.0.1:{fleet.fleet}",
            "--root-certificates", str(home / "ca.crt"), "--auth-supernode-private-key", str(tmp_path / name),
            "--clientappio-api-address", f"127.0.0.1:{free_ports(1)[0]}", log=f"{name}.log",
            FLWR_HOME=str(tmp_path / f"home-{name}"), PATH=f"{BIN}:/usr/bin:/bin",
        )  # fmt: skip
    resident = fleet.client("resident", "--task", "digits")

    # What is submitted to the server is run by it and by stock supernodes, and by no client of ours.
    ran, task = tmp_path / "ran", tmp_path / "evil.py"
    task.write_text(EVIL.format(ran=str(ran)))
    done = fleet.run("--task", str(task), "--rounds", "1", "--set", "min_clients=3")
    assert done.returncode == 0, done.stderr
    (event,) = [json.loads(line) for line in done.stdout.splitlines() if '"round"' in line and '"cohort"' in line]
    assert (event["cohort"], event["replies"]) == (3, 3)
    who = ran.read_text().splitlines()
    assert any("flwr-clientapp" in line for line in who), (
        "a stock supernode runs the code of a bundle: the test can tell"
    )
    assert any("flwr-clientapp" not in line for line in who), "and so does the server"
    ours = {str(each.pid) for each in (psutil.Process(resident.pid), *descendants(resident.pid))}
    assert not ours & {line.partition(" ")[0] for line in who}
    assert "received: train" in fleet.log("resident")

    done = flwr(cli, "run", ".", "here", "--stream", "--run-config", "rounds=1 min_clients=3")
    assert done.returncode == 0, done.stdout + done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"event"')]
    assert [(each["cohort"], each["replies"]) for each in events if each["event"] == "round"] == [(3, 3)]
    listed = runs(cli)
    assert [run["status"] for run in listed] == ["finished:completed"] * 2

    begun = flwr(cli, "run", ".", "here", "--run-config", "rounds=500 min_clients=1")
    assert begun.returncode == 0, begun.stdout + begun.stderr
    third = next(run for run in runs(cli) if run not in listed)
    stopped = flwr(cli, "stop", str(third["run-id"]), "here")
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert "finished:stopped" in [run["status"] for run in runs(cli)]

    # Who is not enrolled is not in, and without the credential nobody starts anything.
    assert "Connection attempt failed" in fleet.log("stranger")
    assert len(fleet.fl("clients", "--json").stdout.splitlines()) == 3
    (cli / "credentials.yaml").unlink()
    refused = flwr(cli, "run", ".", "here", "--run-config", "rounds=1")
    assert refused.returncode != 0
    assert len(runs_of(fleet)) == 3
    assert [stop(resident), stop(fleet.server)] == [0, 0]


def prepared(cli: Path, fleet: Fleet) -> None:
    """Tell `flwr` of a server, by the very lines that the documentation shows."""
    cli.mkdir()
    page = (ROOT / "docs" / "how-to" / "flower-tools.md").read_text().partition("## flwr on fl server")[2]
    toml, shell = (re.search(rf"```{kind}\n(.*?)```", page, re.DOTALL)[1] for kind in ("toml", "bash"))  # type: ignore[index]
    here = (("127.0.0.1:9093", f"127.0.0.1:{fleet.control}"), ("/srv/parterre/runs", str(fleet.store)))
    here = (*here, ("runs/.superlink/control.credential", f"{fleet.store}/.superlink/control.credential"))
    for was, becomes in here:
        toml, shell = toml.replace(was, becomes), shell.replace(was, becomes)
    (cli / "config.toml").write_text(f'[superlink]\ndefault = "here"\n{toml}')
    subprocess.run(["bash", "-c", shell.replace("~/.flwr", str(cli))], check=True)
    assert (cli / "credentials.yaml").stat().st_mode & 0o777 == 0o600


def runs_of(fleet: Fleet) -> list[Path]:
    return [path.parent for path in fleet.store.glob("*/settings.toml")]


def runs(home: Path) -> list[dict[str, str]]:
    return list(json.loads(flwr(home, "ls", "here", "--format", "json").stdout)["runs"])
