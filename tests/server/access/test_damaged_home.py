"""A server's home of which a file was lost, emptied, damaged or exchanged: put right, or refused with what to do."""

import datetime
import logging
import shutil
import sqlite3
from contextlib import closing

import pytest

from fl_common.errors import ParterreError, SecretError, StoreError
from fl_common.trust import keys, secret_files
from fl_server.access import authority, certificates, client_registry, home_files, own_certificates
from fl_server.access.authority import Authority
from fl_server.access.certificates import Files
from fl_server.access.client_registry import FILE, Registry
from fl_server.store.disk.server_lock import sweep
from fl_server.store.run_directories import FOLDER, RunDirectories
from fl_server.superlink.database import LinkDatabase
from fl_server.superlink.execution.credential import CredentialPlugin

NOISE = b"\xff\xfe\0noise" * 200
WAYS = {
    "lost": lambda path: path.unlink(),
    "emptied": lambda path: path.write_bytes(b""),
    "noise": lambda path: path.write_bytes(NOISE),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 5]),
}
CERTIFICATES = ("ca.key", "ca.crt", "server.key", "server.crt")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A home, and another server's."""
    folder = tmp_path_factory.mktemp("homes")
    for name in ("home", "other"):
        home_files.prepare(folder / name, names=["fl.example"])
    return folder


@pytest.fixture
def home(whole, tmp_path):
    return shutil.copytree(whole / "home", tmp_path / "home")


def split(home):
    """Make the pairs of a home those of an earlier release, whose keys stood alone in their files."""
    for name in ("ca.key", "server.key"):
        secret_files.write(home / name, authority.parts((home / name).read_bytes())[0])


def holds(home, before):
    """Say whether a home is in order and its CA is the one that clients know."""
    entry = home_files.prepare(home, names=["fl.example"])
    found = certificates.check(entry.files)
    return found.covers(["fl.example"]) and entry.files.fingerprint == before


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CERTIFICATES)
def test_what_the_ca_can_make_again_it_does_and_its_own_loss_is_refused_with_the_command(home, name, way):
    before = Files.inside(home).fingerprint
    WAYS[way](home / name)
    if name == "ca.key" and way != "lost":
        with pytest.raises(SecretError, match=r"ca\.key is damaged.*`fl certs init --new-ca`"):
            home_files.prepare(home)
        files = own_certificates.init(home, ["localhost"], new_ca=True)
        assert files.fingerprint != before
        home_files.prepare(home)
    else:  # a CA's key may be kept elsewhere
        assert holds(home, before)
        assert holds(home, before)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CERTIFICATES)
def test_a_home_of_an_earlier_release_is_put_right_too(home, name, way):
    before = Files.inside(home).fingerprint
    split(home)
    WAYS[way](home / name)
    if name.startswith("ca.") and (name, way) != ("ca.key", "lost"):
        with pytest.raises(SecretError, match="fl certs init --new-ca") as caught:
            home_files.prepare(home)
        assert ("any client" in str(caught.value)) == (name == "ca.crt")
    else:
        assert holds(home, before)


def test_a_clients_copy_of_the_ca_is_as_good_and_from_then_on_it_stands_beside_the_key(home, whole):
    before = Files.inside(home).fingerprint
    split(home)
    (home / "ca.crt").write_bytes((whole / "home" / "ca.crt").read_bytes())
    assert holds(home, before)
    (home / "ca.crt").unlink()
    assert holds(home, before)


@pytest.mark.parametrize("old", [False, True], ids=["", "of an earlier release"])
@pytest.mark.parametrize("name", CERTIFICATES)
def test_a_file_of_another_server_is_exchanged_for_its_own_or_refused(home, whole, name, old):
    before = Files.inside(home).fingerprint
    if old:
        split(home)
    content = (whole / "other" / name).read_bytes()
    secret_files.write(home / name, authority.parts(content)[0] or content if old else content)
    if name == "ca.key" or (old and name == "ca.crt"):
        with pytest.raises(SecretError, match=r"are of two CAs.*`fl certs init --new-ca`"):
            home_files.prepare(home)
    else:
        assert holds(home, before)


@pytest.mark.parametrize("names", [("ca.key", "ca.crt"), ("server.key", "server.crt"), CERTIFICATES])
def test_both_of_a_pair_at_once(home, names):
    before = Files.inside(home).fingerprint
    for name in names:
        (home / name).unlink()
    if names == ("ca.key", "ca.crt"):
        with pytest.raises(SecretError, match=r"the CA of this server is gone.*--new-ca"):
            home_files.prepare(home)
    else:
        assert holds(home, before) == ("ca.crt" not in names)


def test_without_the_cas_key_a_certificate_that_cannot_be_used_is_refused(home, caplog):
    (home / "ca.key").unlink()
    later = authority.now() + datetime.timedelta(days=80)
    with caplog.at_level(logging.WARNING):
        assert own_certificates.renew_if_due(Files.inside(home), now=later) == ""
    assert "is not renewed. The key of the CA" in caplog.text
    (home / "server.key").unlink()
    with pytest.raises(SecretError, match=r"cannot be used: server\.key was missing.*`fl certs init`"):
        home_files.prepare(home)
    with pytest.raises(SecretError, match="is not here"):
        own_certificates.init(home, ["localhost"])


class Killed(BaseException):
    pass


@pytest.mark.parametrize("new_ca", [False, True])
@pytest.mark.parametrize("old", [False, True], ids=["", "of an earlier release"])
def test_who_is_killed_between_any_two_files_leaves_a_home_that_is_whole(home, monkeypatch, old, new_ca):
    if old:
        split(home)
    write, before, seen = secret_files.write, Files.inside(home).fingerprint, set()
    for last in range(9):
        left = [last]

        def stopped(path, content, *, mode=0o600, left=left):
            if not left[0]:
                raise Killed
            left[0] -= 1
            write(path, content, mode=mode)

        copy = shutil.copytree(home, home.with_name(f"home-{last}"))
        with monkeypatch.context() as patch:
            patch.setattr(secret_files, "write", stopped)
            try:
                own_certificates.init(copy, ["localhost"], new_ca=new_ca)
            except Killed:
                killed = True
            else:
                killed = False
        entry = home_files.prepare(copy)
        certificates.check(entry.files)
        seen.add(entry.files.fingerprint == before)
        if not killed:
            break
    assert last >= 2
    assert seen == ({True, False} if new_ca else {True})


def test_certificates_of_another_ca_or_of_another_year_do_not_pass(whole, tmp_path, monkeypatch):
    home, other = Files.inside(whole / "home"), Files.inside(whole / "other")
    with pytest.raises(SecretError, match=r"do not go together: unable to get local issuer|do not go together: self"):
        certificates.check(Files(other.ca, home.certificate, home.key))
    year = datetime.timedelta(days=365)
    with pytest.raises(SecretError, match="expired on"):
        certificates.check(home, now=authority.now() + year)
    with monkeypatch.context() as patch:
        patch.setattr(authority, "now", lambda now=authority.now: now() + year)
        next_years = own_certificates.init(tmp_path, ["localhost"])
    with pytest.raises(SecretError, match=r"begins only on .* and the clock here says"):
        certificates.check(Files(next_years.ca, next_years.certificate, next_years.key))
    with pytest.raises(SecretError, match=r"the CA .* begins only on .* Set the clock right"):
        home_files.prepare(tmp_path)
    today = Authority(
        authority.x509.load_pem_x509_certificate(home.ca.read_bytes()), authority.key_of(home.ca_key.read_bytes())
    )
    with monkeypatch.context() as patch:
        patch.setattr(authority, "now", lambda now=authority.now: now() + datetime.timedelta(hours=3))
        secret_files.write(tmp_path / "server.pem", today.sign(["localhost"], 9))
    shutil.copytree(whole / "home", tmp_path / "set-back")
    shutil.copy(tmp_path / "server.pem", tmp_path / "set-back" / "server.key")
    assert own_certificates.renew_if_due(Files.inside(tmp_path / "set-back")).startswith("it begins only on")
    certificates.check(Files.inside(tmp_path / "set-back"))


@pytest.mark.parametrize("name", ["ca", "certificate", "key"])
@pytest.mark.parametrize("way", WAYS)
def test_somebody_elses_files_are_refused_by_name(whole, tmp_path, name, way):
    shutil.copytree(whole / "other", tmp_path / "theirs")
    theirs = Files.inside(tmp_path / "theirs")
    files = home_files.given(theirs.certificate, theirs.key, theirs.ca)
    WAYS[way](getattr(files, name))
    with pytest.raises(SecretError, match=getattr(files, name).name.replace(".", r"\.")):
        home_files.prepare(tmp_path / "home", files=files)


@pytest.mark.parametrize("way", WAYS)
def test_the_note_of_somebody_elses_certificates(whole, tmp_path, way):
    theirs = Files.inside(whole / "other")
    home_files.prepare(tmp_path, files=home_files.given(theirs.certificate, theirs.key, theirs.ca))
    WAYS[way](tmp_path / home_files.CHOSEN)
    with pytest.raises(SecretError, match="fl certs init"):
        home_files.existing(tmp_path)


def test_a_ca_that_is_lost_beside_its_key_is_named_with_the_command(home):
    (home / "ca.crt").unlink()
    with pytest.raises(SecretError, match=r"ca\.crt is missing: `fl certs init` puts it right"):
        home_files.existing(home)


def test_the_credential(home, caplog):
    path = home / home_files.CREDENTIAL
    for way in ("lost", "emptied"):
        before = path.read_text()
        WAYS[way](path)
        home_files.prepare(home)
        assert len(path.read_text().strip()) >= home_files.SHORTEST
        assert path.read_text() != before
    assert "another credential was made" in caplog.text
    for content in (NOISE, b"short"):
        path.write_bytes(content)
        with pytest.raises(SecretError, match=rf"is damaged.*rm {path}"):
            home_files.prepare(home)
    path.unlink()
    assert CredentialPlugin(path, None).validate_tokens_in_metadata([]) == (False, None)
    assert "nobody is let into Control: cannot read" in caplog.text


def enrolled(home):
    with closing(Registry(home)) as found:
        key = keys.public_pem(keys.generate().public_key())
        return found.add_key(key, {"site": "bonn"}).identity


def test_the_registry_is_refused_where_it_is_damaged_with_what_to_do(home):
    enrolled(home)
    whole = (home / FILE).read_bytes()
    some = bytearray(whole)
    some[len(whole) // 4 : len(whole) - len(whole) // 4] = b"\xff" * (len(whole) // 2)
    for content in (NOISE, whole[:5000], bytes(some)):
        (home / FILE).write_bytes(content)
        with pytest.raises(StoreError, match=rf"{FILE}: .*mv {home / FILE}\* .*fl enroll token"):
            home_files.prepare(home)


def test_a_registry_that_is_lost_is_not_made_anew_in_silence(home, caplog):
    with caplog.at_level(logging.WARNING):
        home_files.prepare(home)
        assert not caplog.text
        (home / "state.db").touch()
        for way in ("lost", "emptied"):
            caplog.clear()
            WAYS[way](home / FILE)
            home_files.prepare(home)
            assert "come back without their labels" in caplog.text


def test_what_stands_in_the_registry_is_read_or_said_to_be_damaged(home):
    identity = enrolled(home)
    with closing(sqlite3.connect(home / FILE)) as database, database:
        database.execute("UPDATE client SET labels = 'no json'")
    with closing(Registry(home)) as found:
        for read in (found.clients, lambda: found.client(identity), found.examine):
            with pytest.raises(StoreError, match=f"cannot read .*{FILE}"):
                read()
    with pytest.raises(StoreError):
        client_registry.examine(home)


@pytest.mark.parametrize("name", [f"{FILE}-wal", f"{FILE}-shm"])
@pytest.mark.parametrize("way", ["emptied", "noise", "cut"])
def test_the_registrys_journals(home, name, way):
    with closing(Registry(home)) as found:
        found.add_key(keys.public_pem(keys.generate().public_key()), {})
        copies = {path.name: path.read_bytes() for path in home.glob(f"{FILE}*")}  # as after SIGKILL
    for each, content in copies.items():
        (home / each).write_bytes(content)
    WAYS[way](home / name)
    try:
        home_files.prepare(home)
    except StoreError as error:
        assert "fl enroll token" in str(error)  # noqa: PT017


def test_the_superlinks_database(tmp_path):
    path = tmp_path / "state.db"
    database = LinkDatabase(path)
    assert database.examine(began=False) == ""
    assert "fl run --resume NAME" in database.examine(began=True)
    with closing(sqlite3.connect(path)) as made, made:
        made.execute("CREATE TABLE task (id TEXT)")
        made.executemany("INSERT INTO task VALUES (?)", [("x" * 500,)] * 100)
    assert database.examine(began=True) == ""
    content = path.read_bytes()
    for damaged in (NOISE, content[:6000], content[:8192] + b"\xff" * (len(content) - 8192)):
        path.write_bytes(damaged)
        with pytest.raises(StoreError, match=rf"mv {path}\* .*fl run --resume NAME"):
            database.examine(began=True)
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"no such (column|table).*mv"):
        database.runs()


@pytest.mark.parametrize("content", [b"", NOISE, b"relative/path", b"/a\0b"])
def test_a_note_of_where_a_run_is(tmp_path, content):
    notes = RunDirectories(tmp_path)
    notes.note(7, tmp_path)
    (tmp_path / FOLDER / "7").write_bytes(content)
    with pytest.raises(StoreError, match=rf"7 is damaged.*rm {tmp_path / FOLDER / '7'}"):
        notes.directory(7)
    assert len(notes.numbers()) == 1
    notes.note(8, tmp_path)


@pytest.mark.parametrize("content", [b"", NOISE, b"/tmp/pymp-\0x", b"pymp-\xff"])
def test_the_note_of_a_temporary_directory(tmp_path, content):
    (tmp_path / "temporary").write_bytes(content)
    sweep(tmp_path / "temporary", tmp_path)
    assert (tmp_path / "temporary").read_text() == str(tmp_path)


def test_a_home_that_cannot_be_used_is_a_sentence(tmp_path):
    (tmp_path / "home").write_text("")
    with pytest.raises(ParterreError, match="cannot make the directory"):
        home_files.prepare(tmp_path / "home")
    for name in ("ca.key", "ca.crt", "server.key", "server.crt", home_files.CREDENTIAL, FILE, home_files.CHOSEN):
        entry = home_files.prepare(tmp_path / name)
        (entry.home / name).unlink(missing_ok=True)
        (entry.home / name).mkdir()
        with pytest.raises(ParterreError, match=name.replace(".", r"\.")):
            home_files.prepare(entry.home)
