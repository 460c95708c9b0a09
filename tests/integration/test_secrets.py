"""After runs, refusals and crashes: no secret outside its own file, and no code of the server's was run by a client."""

import contextlib
import re
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from fl_common.trust import secret_files
from fl_common.trust.tokens import Token
from tests.integration.conftest import Start, descendants, stop, until
from tests.support.fleet import Fleet

EVIL = """\
import os
from pathlib import Path

with Path({ran!r}).open("a") as file:
    words = Path("/proc/self/cmdline").read_text().replace("\\0", " ")
    file.write(f"{{os.getpid()}} {{words}}\\n")

from fl_common.settings.schema import Settings
from fl_common.tasks.builtin.digits import make

digits = make(Settings())


def build_model():
    return digits.build_model()


def load_partition(partition, partitions):
    return digits.load_partition(partition, partitions)
"""
PRIVATE = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\n(.*?)\n-----END", re.DOTALL)
SECRET_FILES = {"key.pem", "ca.key", "server.key", "control.credential", "executor.secret"}


def secrets_of(directory: Path, token: str) -> list[bytes]:
    """What must be nowhere else: the token's secret, and the content of every secret file."""
    found = [token.split(".")[2].encode(), Token.parse(token).secret, Token.parse(token).secret.hex().encode()]
    for path in directory.rglob("*"):
        if path.name in SECRET_FILES:
            content = path.read_bytes()
            blocks = PRIVATE.findall(content)  # beside which a file may hold its certificate, which everybody sees
            found += [line for block in blocks for line in block.splitlines()] or [content.strip()]
    return found


@pytest.mark.slow
def test_runs_refusals_and_crashes_leave_no_secret_behind_and_a_client_runs_no_code_of_its_server(
    start: Start, tmp_path: Path
) -> None:
    fleet, ran, task = Fleet(start, tmp_path), tmp_path / "ran", tmp_path / "evil.py"
    task.write_text(EVIL.format(ran=str(ran)))
    client = fleet.client("client-0", "--task", "digits")
    looks = [Look.at(client.pid, fleet.server.pid)]
    run = fleet.running("--task", str(task), "--rounds", "1", "--set", "min_clients=1")
    while run.poll() is None:
        looks.append(Look.at(client.pid, fleet.server.pid, run.pid))
        time.sleep(0.5)
    assert run.returncode == 0, fleet.log("run")
    assert "received: train" in fleet.log("client-0")
    ran_in = {line.partition(" ")[0] for line in ran.read_text().splitlines()}
    assert ran_in, "the server runs the task that is submitted to it"
    assert not ran_in & {str(each.pid) for each in family(client.pid)}

    assert {each.rlimit(psutil.RLIMIT_CORE)[0] for each in family(client.pid, fleet.server.pid)} == {0}
    spent, strange, wrong = refusals(fleet)
    crashes(fleet)
    looks.append(Look.at(client.pid, fleet.server.pid))
    assert [stop(client), stop(fleet.server)] == [0, 0]

    secrets = [*secrets_of(tmp_path, fleet.token), *secrets_of(tmp_path, spent), strange.encode(), wrong.encode()]
    assert len(secrets) >= 16
    shown = "\0".join(look.commands for look in looks).encode()
    for secret in secrets:
        assert secret not in shown
        assert not any(secret in look.environments for look in looks)
        for path in tmp_path.rglob("*"):
            if path.is_file() and path.name not in SECRET_FILES:
                assert secret not in path.read_bytes(), f"a secret is in {path}"
    for path in tmp_path.rglob("*"):
        if path.name in SECRET_FILES:
            assert path.stat().st_mode & 0o077 == 0, path


def refusals(fleet: Fleet) -> tuple[str, str, str]:
    """Show the server what it refuses; return the token, the damaged token and the credential that were shown."""
    spent = fleet.fl("enroll", "token").stdout.strip()
    first = fleet.client("client-1", token=spent)
    assert stop(first) == 0
    refused = fleet.begin("client-2", token=spent)
    assert refused.wait(timeout=240) == 1
    assert "used up" in fleet.log("client-2")
    strange = f"{spent[:40]}!{spent[41:]}"
    assert fleet.begin("client-3", token=strange).wait(timeout=240) == 1
    assert "the enrolment token is damaged" in fleet.log("client-3")
    file = fleet.directory / "control.credential"
    secret_files.write(file, b"a credential that somebody made up\n")
    done = fleet.run("--credential", str(file), "--ca", str(fleet.store / ".superlink" / "ca.crt"))
    (fleet.directory / "refused.log").write_text(done.stdout + done.stderr)
    assert "refused the credential of Control" in done.stderr
    return spent, strange, "a credential that somebody made up"


def crashes(fleet: Fleet) -> None:
    """Have a run fail with a traceback, kill the SuperLink, and damage a client's key."""
    failing = fleet.directory / "failing.py"
    failing.write_text("def build_model():\n    raise RuntimeError('no model today')\n\nload_partition = build_model\n")
    done = fleet.run("--task", str(failing), "--set", "min_clients=1")
    (fleet.directory / "failed.log").write_text(done.stdout + done.stderr)
    assert "no model today" in done.stderr
    log = fleet.store / ".superlink" / "superlink.log"
    next(each for each in descendants(fleet.server.pid) if Path(f"/proc/{each.pid}/fd/1").readlink() == log).kill()
    until(lambda: fleet.log("server").count("server is up") == 2, "the SuperLink to be started again", fleet.server)
    key = fleet.directory / "client-1" / "key.pem"
    key.write_bytes(key.read_bytes()[:-60])
    assert fleet.begin("client-1", log="client-1-damaged").wait(timeout=240) == 1
    assert "is damaged" in fleet.log("client-1-damaged")


@dataclass(frozen=True)
class Look:
    """What other users of a machine see of processes, and what these hand on to the processes that they start."""

    commands: str
    environments: bytes

    @classmethod
    def at(cls, *pids: int) -> "Look":
        """Look at processes and all below them; the environment of the first ones is the test's own doing."""
        commands, environments = [], []
        for each in family(*pids):
            with contextlib.suppress(psutil.NoSuchProcess, OSError):
                commands += each.cmdline()
                environments.append(b"" if each.pid in pids else Path(f"/proc/{each.pid}/environ").read_bytes())
        return cls("\0".join(commands), b"\0".join(environments))


def family(*pids: int) -> list[psutil.Process]:
    until(lambda: all(psutil.pid_exists(pid) for pid in pids), "the processes")
    return [each for pid in pids for each in (psutil.Process(pid), *descendants(pid))]
