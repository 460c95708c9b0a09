"""Logs are kept below a size while processes append to them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fl_cli.up import Replies
from fl_server.processes import log_rotation
from fl_server.processes.log_rotation import rotate
from parterre.federation import LOGS, LocalFederation


def test_a_log_that_is_full_is_emptied_in_its_place_and_kept_once(tmp_path: Path) -> None:
    log, aside = tmp_path / "serverapp.log", tmp_path / "serverapp.log.1"
    with log.open("ab", buffering=0) as process:
        for text in (b"first", b"second", b"third"):
            process.write(text * 3)
            rotate([log, tmp_path / "missing.log"], 10)
            assert (log.read_bytes(), aside.read_bytes()) == (b"", text * 3)
        process.write(b"few")
        rotate([log], 10)
    assert (log.read_bytes(), aside.read_bytes()) == (b"few", b"third" * 3)
    assert aside.stat().st_mode & 0o777 == 0o600


def test_a_log_is_emptied_where_there_is_no_room_to_keep_it(tmp_path: Path) -> None:
    log = tmp_path / "serverapp.log"
    log.write_bytes(b"x" * 20)
    (tmp_path / "serverapp.log.1").symlink_to("/dev/full")
    rotate([log], 10)
    assert log.read_bytes() == b""
    assert not (tmp_path / "serverapp.log.1").is_symlink()


def test_a_federation_of_fl_up_keeps_its_logs_below_that_size_too(tmp_path: Path) -> None:
    logs = tmp_path / LOGS
    logs.mkdir()
    federation = LocalFederation(tmp_path, clients=1, insecure=True)
    for name in ("client-0.log", "client-1.log"):
        with (logs / name).open("wb") as file:
            file.truncate(log_rotation.MOST_BYTES + 1)
    federation._rotate()
    assert (logs / "client-0.log").stat().st_size == 0
    assert (logs / "client-1.log").stat().st_size  # there is no such client


def test_replies_are_shown_also_from_a_log_that_was_emptied(tmp_path: Path) -> None:
    class Shown:
        def __init__(self) -> None:
            self.rounds: list[int] = []

        def on_event(self, event: Mapping[str, Any]) -> None:
            self.rounds.append(event["round"])

    log, shown = tmp_path / "serverapp.log", Shown()
    replies = Replies(log, shown)  # type: ignore[arg-type]
    for number, text in ((1, "x" * 500), (2, "")):
        log.write_text(f"{text}\n" + json.dumps({"event": "replied", "round": number}) + "\n")
        replies.look()
    assert shown.rounds == [1, 2]
