"""`fl certs`, `fl enroll` and `fl clients` as commands: who may come in, made, shown, and taken back."""

import datetime
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from fl_cli import certs, clients, enroll
from fl_common.errors import AccessError, ParterreError, SecretError
from fl_common.trust import keys
from fl_common.trust.tokens import Token
from fl_server.access import home_files, own_certificates
from fl_server.access.client_registry import FILE, Registry

Fl = Callable[..., Result]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    home_files.prepare(tmp_path / ".superlink")
    return tmp_path


@pytest.fixture
def fl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fl:
    """Run a command on the server in `tmp_path`."""
    monkeypatch.setenv("FL_STORE", str(tmp_path))
    app = typer.Typer()
    for each in (certs, enroll, clients):
        each.register(app)

    def run(*arguments: str) -> Result:
        result = CliRunner().invoke(app, arguments)
        if isinstance(result.exception, ParterreError):
            raise result.exception
        return result

    return run


def lines(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def public() -> bytes:
    return keys.public_pem(keys.generate().public_key())


# ---- fl certs


def test_certs_init_makes_a_ca_and_a_certificate_for_the_names_given_and_this_machine(fl: Fl, tmp_path: Path) -> None:
    made = fl("certs", "init", "--name", "fl.example.org,192.0.2.7", "--name", "2001:db8::7", "--days", "30")
    assert made.exit_code == 0, made.output
    ca, server = lines(fl("certs", "show", "--json"))
    assert server["names"] == ["fl.example.org", "192.0.2.7", "2001:db8::7", "localhost", "127.0.0.1", "::1"]
    assert (ca["what"], server["what"]) == ("ca", "server")
    assert 29.8 < server["days_left"] <= 30 < 3649 < ca["days_left"] <= 3650  # type: ignore[operator]
    home = tmp_path / ".superlink"
    assert {path.name: path.stat().st_mode & 0o777 for path in home.iterdir()} == {
        "ca.key": 0o600, "server.key": 0o600, "ca.crt": 0o644, "server.crt": 0o644
    }  # fmt: skip
    for path in (home / "ca.crt", home / "server.crt"):
        assert str(path) in made.output


def test_certs_init_takes_note_of_somebody_elses_certificates_so_that_tokens_name_their_ca(
    fl: Fl, tmp_path: Path
) -> None:
    company = own_certificates.init(tmp_path / "company", ["fl.example.org"])
    own = ("--certificate", str(company.certificate), "--key", str(company.key), "--ca", str(company.ca))
    made = fl("certs", "init", *own)
    assert made.exit_code == 0, made.output
    assert "fl.example.org" in made.output
    assert not (tmp_path / ".superlink" / "ca.key").exists()
    assert Token.parse(fl("enroll", "token").stdout.strip()).fingerprint == company.fingerprint
    with pytest.raises(SecretError, match="go together"):
        fl("certs", "init", *own[:4])


def test_certs_init_again_keeps_the_ca_and_its_clients(fl: Fl) -> None:
    fl("certs", "init", "--ca-days", "100")
    first = lines(fl("certs", "show", "--json"))
    fl("certs", "init", "--name", "new.example.org", "--ca-days", "5")
    second = lines(fl("certs", "show", "--json"))
    assert second[0] == first[0]
    assert second[1]["fingerprint"] != first[1]["fingerprint"]
    assert "new.example.org" in second[1]["names"]  # type: ignore[operator]


def test_a_certificate_never_outlives_its_ca(fl: Fl) -> None:
    fl("certs", "init", "--ca-days", "10", "--days", "90")
    ca, server = lines(fl("certs", "show", "--json"))
    assert server["ends"] == ca["ends"]


def test_certs_show_says_for_whom_until_when_and_the_fingerprint_that_tokens_name(fl: Fl, store: Path) -> None:
    shown = fl("certs", "show").stdout
    files = home_files.existing(store / ".superlink").files
    assert re.search(r"ca: .*ca\.crt\n  subject +CN=Parterre CA", shown)
    assert re.search(r"names +localhost, 127\.0\.0\.1, ::1", shown)
    assert re.search(r"until +\d{4}-\d\d-\d\d \d\d:\d\d UTC \((89|90) days\)", shown)
    assert f"SHA-256 {files.fingerprint}" in shown


def test_certs_show_shows_any_certificate(fl: Fl, tmp_path: Path) -> None:
    theirs = own_certificates.init(tmp_path / "theirs", ["theirs.example.org"])
    assert "theirs.example.org" in fl("certs", "show", str(theirs.certificate)).stdout


def test_certs_show_shows_the_ones_that_somebody_brought(fl: Fl, store: Path) -> None:
    theirs = own_certificates.init(store / "theirs", ["theirs.example.org"])
    home_files.prepare(store / ".superlink", files=home_files.given(theirs.certificate, theirs.key, theirs.ca))
    ca, server = lines(fl("certs", "show", "--json"))
    assert (ca["file"], server["names"]) == (str(theirs.ca), ["theirs.example.org"])
    token = Token.parse(fl("enroll", "token").stdout.strip())
    assert token.fingerprint == ca["fingerprint"]


def test_a_certificate_that_is_due_says_so_and_is_renewed_when_the_server_looks(fl: Fl, store: Path) -> None:
    files = home_files.existing(store / ".superlink").files
    fl("certs", "init", "--days", "30")
    in_25_days = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=25)
    assert own_certificates.renew_if_due(files, now=in_25_days) == "it was due"


def test_certs_say_what_is_wrong_with_what_they_are_given(fl: Fl, store: Path) -> None:
    with pytest.raises(ParterreError, match=r"expected a DNS name or an IP address; got 'fl.example.org:9092'"):
        fl("certs", "init", "--name", "fl.example.org:9092")
    (store / "no.pem").write_text("no certificate")
    with pytest.raises(ParterreError, match=r"no\.pem holds no certificate: expected PEM"):
        fl("certs", "show", str(store / "no.pem"))
    with pytest.raises(ParterreError, match=r"cannot read .*none\.pem: No such file"):
        fl("certs", "show", str(store / "none.pem"))
    with pytest.raises(ParterreError, match=r"there is no server in .*empty yet. Start it with `fl server`"):
        fl("certs", "show", "--store", str(store / "empty"))
    assert fl("certs", "init", "--days", "0").exit_code == 2


# ---- fl enroll


def test_a_token_is_printed_alone_so_that_a_script_can_take_it(fl: Fl, store: Path) -> None:
    made = fl("enroll", "token", "--uses", "2", "--expires", "90m", "--label", "site=berlin", "--label", "gpu=yes")
    token = Token.parse(made.stdout.strip())
    assert f"token {token.identity}: good for 2 client(s), for 90m" in made.stderr
    (entry,) = lines(fl("enroll", "list", "--json"))
    assert (entry["token"], entry["uses"], entry["used"], entry["state"]) == (token.identity, 2, 0, "good")
    assert entry["labels"] == {"site": "berlin", "gpu": "yes"}
    assert entry["expires"] - entry["made"] == pytest.approx(5400)  # type: ignore[operator]
    registry = Registry(store / ".superlink")
    assert registry.admit(token, public()).labels == {"site": "berlin", "gpu": "yes"}
    registry.admit(token, public())
    with pytest.raises(AccessError, match="used up"):
        registry.admit(token, public())
    assert "used up  2/2" in fl("enroll", "list").stdout


def test_a_token_in_a_file_is_its_owners_alone_and_is_not_printed(fl: Fl, store: Path) -> None:
    file = store / "token"
    file.write_text("an older one")
    file.chmod(0o644)
    made = fl("enroll", "token", "--file", str(file))
    token = Token.parse(file.read_text())
    assert file.stat().st_mode & 0o777 == 0o600
    assert token.text not in made.output
    assert token.text.split(".")[2] not in fl("enroll", "list").output
    assert token.secret not in (store / ".superlink" / FILE).read_bytes()


def test_a_token_expires_and_can_be_revoked_before(fl: Fl, store: Path) -> None:
    gone, revoked = (Token.parse(fl("enroll", "token", "--expires", each).stdout) for each in ("0.001s", "1h"))
    assert fl("enroll", "revoke", revoked.identity).stdout == f"token {revoked.identity} is revoked\n"
    registry = Registry(store / ".superlink")
    with pytest.raises(AccessError, match="expired"):
        registry.admit(gone, public())
    with pytest.raises(AccessError, match="not valid"):
        registry.admit(revoked, public())
    assert [entry["state"] for entry in lines(fl("enroll", "list", "--json"))] == ["expired", "revoked"]


def test_a_public_key_is_registered_by_hand(fl: Fl, store: Path) -> None:
    pem = public()
    (store / "public.pem").write_bytes(pem)
    identity = keys.client_id(pem)
    assert fl("enroll", "key", str(store / "public.pem"), "--label", "site=bonn").stdout.split()[-1] == identity
    (entry,) = lines(fl("clients", "--json"))
    assert (entry["client"], entry["labels"], entry["token"]) == (identity, {"site": "bonn"}, "")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("token", "--expires", "soon"), r"--expires takes a number and s, m, h or d, such as 1h; got 'soon'"),
        (("token", "--expires", "0h"), "--expires takes"),
        (("token", "--label", "berlin"), r"--label takes KEY=VALUE, such as site=berlin; got 'berlin'"),
        (("token", "--file", "/nowhere/token"), r"cannot write /nowhere/token: No such file"),
        (("revoke", "0123"), r"there is no token '0123'. See `fl enroll list`"),
        (("key", "none.pem"), "cannot read none.pem"),
    ],
)
def test_enroll_says_what_is_wrong_with_what_it_is_given(fl: Fl, store: Path, arguments: tuple[str], why: str) -> None:
    with pytest.raises(ParterreError, match=why):
        fl("enroll", *arguments)


def test_a_token_lets_in_at_least_one(fl: Fl, store: Path) -> None:
    assert fl("enroll", "token", "--uses", "0").exit_code == 2


# ---- fl clients


@pytest.fixture
def three(store: Path) -> list[str]:
    """Three clients of a server, the first of which took part in two runs."""
    registry = Registry(store / ".superlink")
    made = [registry.add_key(public(), {"site": site}) for site in ("berlin", "berlin", "paris")]
    registry.settle(made[0].identity, 77)
    registry.note_seen({made[0].identity: made[0].since})
    registry.close()
    for name, rounds in (("one", 3), ("two", 4)):
        (store / name).mkdir()
        entry = {"client": made[0].identity, "rounds": rounds, "rejected": {"late": 1, "norm": 2}}
        (store / name / "clients.json").write_text(json.dumps({"77": entry}))
    return [each.identity for each in made]


def test_a_client_that_was_killed_for_memory_is_marked_with_limit_and_peak(
    fl: Fl, store: Path, three: list[str]
) -> None:
    why = "out of memory: limit 2048 MiB, peak 2048 MiB"
    Registry(store / ".superlink").note_killed(three[1], why)
    row = next(line for line in fl("clients").stdout.splitlines() if line.startswith(three[1]))
    assert row.rstrip().endswith(f"killed now, {why}")
    assert {entry["client"]: entry["killed"] for entry in lines(fl("clients", "--json"))}[three[1]] == why


def test_clients_are_listed_with_labels_rounds_and_what_was_rejected(fl: Fl, three: list[str]) -> None:
    entries = {entry["client"]: entry for entry in lines(fl("clients", "--json"))}
    assert set(entries) == set(three)
    first = entries[three[0]]
    assert (first["node"], first["rounds"], first["rejected"]) == (77, 7, {"late": 2, "norm": 4})
    assert first["labels"] == {"site": "berlin"}
    row = next(line for line in fl("clients").stdout.splitlines() if line.startswith(three[0]))
    _, _, labels, _, _, rounds, rejected = re.split(r"  +", row)
    assert (labels, rounds, rejected) == ("site=berlin", "7", "6")


def test_a_history_that_cannot_be_read_is_said_and_left_out(fl: Fl, store: Path, three: list[str]) -> None:
    (store / "two" / "clients.json").write_text("{")
    shown = fl("clients", "--json")
    assert {entry["client"]: entry["rounds"] for entry in lines(shown)}[three[0]] == 3
    assert "two/clients.json cannot be read" in shown.stderr


def test_a_client_is_revoked_by_the_beginning_of_its_id_and_stays_on_the_list(fl: Fl, three: list[str]) -> None:
    assert fl("clients", "revoke", three[1][:8]).stdout == f"client {three[1]} is revoked\n"
    assert next(line for line in fl("clients").stdout.splitlines() if three[1] in line).endswith("revoked")
    with pytest.raises(ParterreError, match="what keeps its key out"):
        fl("clients", "forget", three[1])
    with pytest.raises(ParterreError, match=r"no client whose id begins with 'nobody'. See `fl clients`"):
        fl("clients", "revoke", "nobody")
    with pytest.raises(ParterreError, match="several clients"):
        fl("clients", "revoke", "")


def test_a_client_that_is_gone_is_forgotten(fl: Fl, three: list[str]) -> None:
    assert fl("clients", "forget", "77").stdout == f"client {three[0]} is forgotten\n"
    assert [entry["client"] for entry in lines(fl("clients", "--json"))] == three[1:]


def test_all_that_were_not_heard_of_for_long_are_forgotten_but_those_revoked(
    fl: Fl, store: Path, three: list[str]
) -> None:
    registry = Registry(store / ".superlink")
    month = 30 * 86_400
    registry.note_seen(dict.fromkeys(three[:2], 1.0) | {three[2]: datetime.datetime.now().timestamp() - month / 2})
    registry.revoke(three[1])
    assert fl("clients", "forget", "--unseen", "30d").stdout == f"client {three[0]} is forgotten\n"
    assert [entry["client"] for entry in lines(fl("clients", "--json"))] == three[1:]
    assert fl("clients", "forget", "--unseen", "30d").stdout == ""
    for arguments in ((), (three[1], "--unseen", "1d")):
        with pytest.raises(ParterreError, match="either a client's ID or --unseen"):
            fl("clients", "forget", *arguments)
    with pytest.raises(ParterreError, match="--unseen takes a number and s, m, h or d"):
        fl("clients", "forget", "--unseen", "long")


def test_a_client_that_was_not_heard_of_for_minutes_is_marked_as_gone(fl: Fl, store: Path, three: list[str]) -> None:
    now = datetime.datetime.now().timestamp()
    Registry(store / ".superlink").note_seen({three[0]: now - 1000.0, three[1]: now})
    marks = {line.split()[0]: line.split()[-1] == "gone" for line in fl("clients").stdout.splitlines()[1:]}
    assert [marks[client] for client in three[:2]] == [True, False]


def test_a_server_without_clients_says_how_one_comes_in(fl: Fl, store: Path) -> None:
    assert "`fl enroll token` makes a token" in fl("clients").stderr
