"""What a full disk refuses is told in a sentence; anything else is not."""

import errno
import sqlite3
from pathlib import Path

import pytest

from fl_server.store.disk import whole_writes


def test_a_note_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("123456")
    with (tmp_path / "lock").open("a+") as file:
        whole_writes.note(file, "78")
    assert (tmp_path / "lock").read_text() == "78"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/far/file"), "cannot use /far/file: the disk is full"),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory"), "No usable temporary directory: "),
        (sqlite3.OperationalError("database or disk is full"), "a database cannot be written: the disk is full"),
        (sqlite3.OperationalError("no such table"), ""),
        (ConnectionResetError(errno.ECONNRESET, "reset"), ""),
    ],
)
def test_only_what_the_disk_refuses_is_put_into_words(error: OSError | sqlite3.Error, words: str) -> None:
    assert whole_writes.told(error).startswith(words)
    assert bool(whole_writes.told(error)) == bool(words)
