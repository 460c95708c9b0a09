"""Who is asked and who is shut out, by commands: labels that were enrolled, a client that is revoked."""

import json
from pathlib import Path

import pytest

from fl_common.trust.tokens import Token
from tests.integration.conftest import Start, stop, until
from tests.support.fleet import Fleet

QUICK = ("--rounds", "2", "--set", "fraction_evaluate=0", "--set", "plot=false", "--set", "tensorboard=false")


def clients(fleet: Fleet) -> list[dict[str, object]]:
    return [json.loads(line) for line in fleet.fl("clients", "--json").stdout.splitlines()]


@pytest.mark.slow
def test_only_clients_of_the_label_are_asked_and_one_that_is_revoked_is_out_at_once_and_for_good(
    start: Start, tmp_path: Path
) -> None:
    fleet = Fleet(start, tmp_path)
    tokens = {
        site: fleet.fl("enroll", "token", "--uses", "2", "--label", f"site={site}").stdout.strip()
        for site in ("berlin", "paris")
    }
    names = ("berlin-1", "berlin-2", "paris-1")
    begun = {name: fleet.begin(name, token=tokens[name.partition("-")[0]]) for name in names}
    until(lambda: all("joined" in fleet.log(name) for name in ("berlin-1", "berlin-2", "paris-1")), "three clients")

    # Only those of berlin.
    done = fleet.run(*QUICK, "--set", "where=site=berlin", "--set", f"out={fleet.store}/berlin")
    assert done.returncode == 0, done.stderr
    assert [(each["cohort"], each["replies"]) for each in fleet.events("berlin", "round")] == [(2, 2)] * 2
    assert all("received: train" in fleet.log(name) for name in ("berlin-1", "berlin-2"))
    assert "received" not in fleet.log("paris-1")
    assert {entry["labels"]["site"]: entry["rounds"] for entry in clients(fleet)} == {"berlin": 2, "paris": 0}  # type: ignore[index]

    # What the server would not believe is counted for each client, though the run comes to nothing.
    strict = ("--set", "metric_limits=loss=0:1e-9", "--set", "max_repeats=0", "--set", "where=site=berlin")
    done = fleet.run(*QUICK, *strict, "--set", f"out={fleet.store}/strict")
    assert done.returncode == 1
    assert "every client failed alike in round 1" in done.stderr
    assert [each["reason"] for each in fleet.events("strict", "rejected")] == ["range"] * 2
    rejected = {"berlin": {"range": 1}, "paris": {}}
    assert all(entry["rejected"] == rejected[entry["labels"]["site"]] for entry in clients(fleet))  # type: ignore[index]

    # Nobody.
    done = fleet.run(*QUICK, "--set", "where=site=rome", "--set", "wait_seconds=1", "--set", f"out={fleet.store}/rome")
    assert done.returncode == 1
    assert "waited 1 s for 2 clients with where='site=rome'; 0 of the 3 that are connected fit" in done.stderr
    (waiting,) = fleet.events("rome", "waiting")
    assert (waiting["where"], waiting["have"], waiting["need"], waiting["online"]) == ("site=rome", 0, 2, 3)

    # Out, while it is connected; and for good, by its old token, a new one, and the client's own restart.
    paris = next(entry for entry in clients(fleet) if entry["labels"] == {"site": "paris"})
    identity = str(paris["client"])
    process = fleet.begin("paris-1", log="paris-1-beside")  # a second process under the same state is no way in
    assert process.wait(timeout=240) == 1
    assert "another client uses the state directory" in fleet.log("paris-1-beside")
    assert fleet.fl("clients", "revoke", identity[:8]).returncode == 0
    until(lambda: "was revoked. It waits" in fleet.log("paris-1"), "the wait of who was revoked")
    assert stop(begun["paris-1"]) == 0
    for number, token in enumerate((tokens["paris"], fleet.token)):
        again = fleet.begin("paris-1", token=token, log=f"paris-1-again-{number}")
        until(lambda log=f"paris-1-again-{number}": "It waits, and looks" in fleet.log(log), "its wait again", again)
        assert "was revoked" in fleet.log(f"paris-1-again-{number}")
        assert stop(again) == 0
    assert Token.parse(fleet.token).text.split(".")[2] not in fleet.log("paris-1-again-1")
    (entry,) = [entry for entry in clients(fleet) if entry["client"] == identity]
    assert entry["revoked"] is not None
    done = fleet.run(*QUICK, "--set", "where=site=paris", "--set", "wait_seconds=1", "--set", "min_clients=1")
    assert "0 of the 2 that are connected fit" in done.stderr
    assert stop(fleet.server) == 0
