"""Secret files: whole, mode 0600, refused where others can read them, and never quoted."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fl_common.errors import SecretError
from fl_common.trust import secret_files


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_secret_is_written_with_mode_0600_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        secret_files.write(tmp_path / "key", b"secret")
        secret_files.make_directory(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert mode(tmp_path / "key") == 0o600
    assert mode(tmp_path / "a" / "b") == 0o700
    assert secret_files.read(tmp_path / "key", "the key") == b"secret"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["key"]


def test_writing_again_replaces_the_whole_and_closes_what_was_open_to_others(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(b"old and longer")
    path.chmod(0o644)
    secret_files.write(path, b"new")
    assert (path.read_bytes(), mode(path)) == (b"new", 0o600)


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o644, 0o660, 0o610])
def test_a_secret_that_others_can_read_is_refused_with_what_to_do(tmp_path, bits):
    path = tmp_path / "key"
    path.write_bytes(b"hidden words")
    path.chmod(bits)
    with pytest.raises(
        SecretError, match=rf"the key .*key can be read by others \(mode {bits:04o}\).*chmod 600"
    ) as caught:
        secret_files.read(path, "the key")
    assert "hidden" not in str(caught.value)


def test_a_secret_that_is_missing_or_a_directory_is_named(tmp_path):
    with pytest.raises(SecretError, match=r"cannot read the key .*nowhere: No such file"):
        secret_files.read(tmp_path / "nowhere", "the key")
    with pytest.raises(SecretError, match="cannot write"):
        secret_files.write(tmp_path / "no" / "such" / "directory", b"")


def test_a_directory_that_was_open_is_closed(tmp_path):
    open_ = tmp_path / "state"
    open_.mkdir(mode=0o755)
    secret_files.make_directory(open_)
    assert mode(open_) == 0o700


def test_a_temporary_file_that_somebody_laid_as_a_link_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / f".key.{os.getpid()}").symlink_to(victim)
    with pytest.raises(SecretError):
        secret_files.write(tmp_path / "key", b"secret")
    assert victim.read_bytes() == b"precious"


def test_a_process_that_crashes_leaves_no_file_of_its_memory(tmp_path):
    program = (
        "import os, resource\n"
        "from fl_common.trust import secret_files\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)\n"
        "secret_files.leave_no_core()\n"
        "print(resource.getrlimit(resource.RLIMIT_CORE)[0], flush=True)\n"
        "os.abort()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(secret_files.__file__).parents[2])},
    )
    assert (done.returncode, done.stdout) == (-signal.SIGABRT, "0\n")
    assert list(tmp_path.iterdir()) == []


def test_a_store_made_under_umask_0_is_writable_by_nobody_else_and_its_secrets_are_readable_by_nobody_else(tmp_path):
    command = [str(Path(sys.executable).parent / "fl"), "certs", "init", "--store", str(tmp_path / "store")]
    subprocess.run(command, check=True, umask=0, capture_output=True)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "store").rglob("*")}
    assert not [path for path, mode in modes.items() if mode & 0o022]
    assert {mode for path, mode in modes.items() if path.suffix == ".key"} == {0o600}
