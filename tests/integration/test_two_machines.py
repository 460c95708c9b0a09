"""The four commands of the documentation, as they stand there, on two machines that share nothing but a cable."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_wine

from fl_common.trust.tokens import Token
from tests.integration.conftest import Start, events, stop, until
from tests.support.machines import two_machines

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "several-machines.md"
REACH = "{python} -c 'import socket; socket.create_connection((\"fl.example.org\", {port}), timeout=5)'"


def commands() -> list[str]:
    """Return what the page tells to type, before it goes into details."""
    blocks = re.findall(r"```console\n(.*?)```", PAGE.read_text().partition("\n## ")[0], re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]


@pytest.mark.netns
def test_four_commands_of_the_documentation_make_an_encrypted_federation_of_two_machines(
    tmp_path: Path, start: Start
) -> None:
    serve, enrol, join, run = commands()
    with two_machines(tmp_path, called="fl.example.org") as (server, client):
        for machine in (server, client):
            shutil.copy(ROOT / "examples" / "my_task.py", machine.directory)
        x, y = load_wine(return_X_y=True)
        rows = np.column_stack([(x - x.mean(axis=0)) / x.std(axis=0), y])[::3]
        head = ",".join([*(f"x{number}" for number in range(13)), "label"])
        np.savetxt(client.directory / "site_a.csv", rows, delimiter=",", header=head, comments="")
        packets = tmp_path / "packets"
        sniffer = server.listen(start, packets)
        until(lambda: "listening" in (tmp_path / "sniffer.log").read_text(), "the sniffer", sniffer)

        serving = start(*server.command(serve), log="server.log")
        until(lambda: "server is up" in (tmp_path / "server.log").read_text(), "the server", serving)
        done = server.run(enrol)
        assert done.returncode == 0, done.stderr
        shutil.move(server.directory / "token", client.directory / "token")
        joining = start(*client.command(join), log="client.log")
        done = server.run(run)
        assert done.returncode == 0, done.stderr + (tmp_path / "client.log").read_text()

        (finished,) = server.directory.glob("runs/*/model.keras")
        rounds = events(finished.parent, "round")
        assert [(each["round"], each["replies"]) for each in rounds] == [(number, 1) for number in range(1, 21)]
        assert rounds[-1]["loss"] < rounds[0]["loss"]

        # To the other machine only the port for clients is open; and on the cable there is nothing to read.
        reached = [client.run(REACH.format(python="python3", port=port)) for port in (9092, 9093, 9091)]
        assert [each.returncode == 0 for each in reached] == [True, False, False]
        assert all("Connection refused" in each.stderr for each in reached[1:])
        seen, token = packets.read_bytes(), Token.parse((client.directory / "token").read_text())
        assert len(seen) > 50_000
        assert b"\x16\x03\x01" in seen  # a TLS handshake
        for word in (token.text.split(".")[2].encode(), token.secret, b"num-examples", b"local_epochs", b"/kernel"):
            assert word not in seen
        assert [stop(joining), stop(serving)] == [0, 0]
        sniffer.kill()
