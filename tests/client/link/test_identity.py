"""A client's state directory: one key, one user, nothing that others can read."""

import subprocess
import sys

import pytest

from fl_client.link import identity
from fl_client.link.identity import open_identity
from fl_common.errors import SecretError
from fl_common.trust import keys


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_key_is_made_once_and_outlasts_the_process(tmp_path):
    first = open_identity(str(tmp_path / "state"), "")
    client = first.client
    first.close()
    again = open_identity(str(tmp_path / "state"), "")
    assert again.client == client
    assert keys.client_id(again.public_file.read_bytes()) == client
    again.close()


def test_only_its_owner_can_read_it(tmp_path):
    opened = open_identity(str(tmp_path / "deep" / "state"), "")
    assert opened.directory.stat().st_mode & 0o777 == 0o700
    assert (opened.directory / identity.KEY).stat().st_mode & 0o777 == 0o600
    opened.close()
    (opened.directory / identity.KEY).chmod(0o640)
    with pytest.raises(SecretError, match=r"this client's key .* can be read by others \(mode 0640\).*chmod 600"):
        open_identity(str(opened.directory), "")


def test_two_clients_do_not_share_a_directory(tmp_path):
    opened = open_identity(str(tmp_path / "state"), "")
    with pytest.raises(SecretError, match=r"another client uses the state directory .*--state"):
        open_identity(str(tmp_path / "state"), "")
    opened.close()
    open_identity(str(tmp_path / "state"), "").close()


def test_without_a_directory_each_takes_the_first_that_is_free_and_gets_it_back(tmp_path):
    one, two = open_identity("", "fl.example.org:9092"), open_identity("", "fl.example.org:9092")
    other = open_identity("", "other.example.org:9092")
    assert len({one.client, two.client, other.client}) == 3
    client = one.client
    one.close()
    back = open_identity("", "fl.example.org:9092")
    assert back.client == client
    for each in (back, two, other):
        assert tmp_path in each.directory.parents
        each.close()


def test_replicas_that_share_a_directory_take_as_many_identities_as_they_are(tmp_path):
    def take(count):
        taken = [open_identity("", "fl.example:9092", str(tmp_path / "shared")) for _ in range(count)]
        for each in taken:
            each.close()
        return {each.client for each in taken}

    three = take(3)
    assert len(three) == 3
    assert take(2) < three
    assert take(3) == three  # another stack's containers on the same volume
    assert take(4) > three


def test_the_lock_ends_with_the_process_however_it_ends(tmp_path):
    program = (
        "import os, signal, sys\n"
        "from fl_client.link.identity import open_identity\n"
        f"opened = open_identity({str(tmp_path / 'state')!r}, '')\n"
        "print(opened.client, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == -9
    opened = open_identity(str(tmp_path / "state"), "")
    assert opened.client == done.stdout.strip()
    opened.close()


def test_a_damaged_key_is_named_and_not_replaced(tmp_path):
    opened = open_identity(str(tmp_path / "state"), "")
    opened.close()
    path = opened.directory / identity.KEY
    path.write_bytes(b"-----BEGIN PRIVATE KEY-----\nsecret words\n")
    with pytest.raises(SecretError, match=r"the key in .*key\.pem is damaged") as caught:
        open_identity(str(opened.directory), "")
    assert "secret words" not in str(caught.value)
    assert path.read_bytes().endswith(b"secret words\n")


def test_it_remembers_whom_it_trusts_and_by_which_token_it_came(tmp_path):
    opened = open_identity(str(tmp_path / "state"), "")
    assert opened.authority is None
    assert not opened.trusts("00" * 32)
    assert not opened.enrolled_with("0123456789ab")
    opened.note_enrolled("0123456789ab")
    assert opened.enrolled_with("0123456789ab")
    assert not opened.enrolled_with("ffffffffffff")
    opened.close()
