"""After a real run: no secret outside its own file, and no code of the server's was run by a client."""

from pathlib import Path

import psutil
import pytest

from fl_common.tokens import Token
from tests.integration.conftest import Start, descendants, stop, until
from tests.integration.fleet import Fleet

EVIL = """\
import os
from pathlib import Path

with Path({ran!r}).open("a") as file:
    words = Path("/proc/self/cmdline").read_text().replace("\\0", " ")
    file.write(f"{{os.getpid()}} {{words}}\\n")

from fl_common.settings import Settings
from fl_common.tasks.digits import make

digits = make(Settings())


def build_model():
    return digits.build_model()


def load_partition(partition, partitions):
    return digits.load_partition(partition, partitions)
"""
SECRET_FILES = {"key.pem", "ca.key", "server.key", "control.credential", "executor.secret"}


def secrets_of(directory: Path, token: str) -> list[bytes]:
    """What must be nowhere else: the token's secret, and the content of every secret file."""
    found = [token.split(".")[2].encode(), Token.parse(token).secret, Token.parse(token).secret.hex().encode()]
    for path in directory.rglob("*"):
        if path.name in SECRET_FILES:
            content = path.read_bytes()
            found.append(content.splitlines()[1] if content.startswith(b"-----") else content.strip())
    return found


@pytest.mark.slow
def test_a_run_leaves_no_secret_behind_and_a_client_runs_no_code_of_its_server(start: Start, tmp_path: Path) -> None:
    fleet, ran, task = Fleet(start, tmp_path), tmp_path / "ran", tmp_path / "evil.py"
    task.write_text(EVIL.format(ran=str(ran)))
    client = fleet.client("client-0", "--task", "digits")
    commands = [each.cmdline() for each in family(client.pid, fleet.server.pid)]
    done = fleet.run("--task", str(task), "--rounds", "1", "--set", "min_clients=1")
    assert done.returncode == 0, done.stderr
    assert "received: train" in fleet.log("client-0")
    clients = {str(each.pid) for each in family(client.pid)}
    commands += [each.cmdline() for each in family(client.pid, fleet.server.pid)]
    ran_in = {line.partition(" ")[0] for line in ran.read_text().splitlines()}
    assert ran_in, "the server runs the task that is submitted to it"
    assert not ran_in & clients

    assert [stop(client), stop(fleet.server)] == [0, 0]

    secrets = secrets_of(tmp_path, fleet.token)
    assert len(secrets) >= 8
    argv = "\0".join(" ".join(each) for each in commands).encode()
    printed = (done.stdout + done.stderr).encode()
    for secret in secrets:
        assert secret not in argv
        assert secret not in printed
        for path in tmp_path.rglob("*"):
            if path.is_file() and path.name not in SECRET_FILES:
                assert secret not in path.read_bytes(), f"a secret is in {path}"
    for path in tmp_path.rglob("*"):
        if path.name in SECRET_FILES:
            assert path.stat().st_mode & 0o077 == 0, path


def family(*pids: int) -> list[psutil.Process]:
    until(lambda: all(psutil.pid_exists(pid) for pid in pids), "the processes")
    return [each for pid in pids for each in (psutil.Process(pid), *descendants(pid))]
