"""The outline of a log is what the whole log says, of whatever its lines are made."""

import json
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from fl_server.store import waits
from fl_server.store.log import events_log, outlines

EVENT = st.one_of(
    st.builds(lambda number: {"event": "round", "round": number}, st.integers(1, 9)),
    st.sampled_from(["started", "finished", "failed", "stopped", "rejected", "warning"]).map(lambda k: {"event": k}),
    st.builds(lambda have: {"event": "waiting", "have": have, "need": 2}, st.integers(0, 2)),
)
LINE = st.one_of(EVENT.map(lambda event: json.dumps(event).encode()), st.sampled_from([b"", b"[", b"\xff" * 70_000]))


TURNED = [b'{"event": "round", "round": 2}', *[b"\xff" * 70_000] * 4, b'{"event": "round", "round": 1}']


@example(lines=TURNED, end=b"")
@given(st.lists(LINE, max_size=12), st.sampled_from([b"", b"\n", b'{"event": "fin']))
def test_the_two_ends_say_what_the_whole_log_says(tmp_path_factory, lines: list[bytes], end: bytes) -> None:
    path = tmp_path_factory.mktemp("run") / "events.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines) + end)
    whole, found = events_log.read(path), outlines.of(path)
    rounds = events_log.rounds(whole)
    assert found.first == (whole[0] if whole else {})
    assert found.last == next((event for event in reversed(whole) if event["event"] in outlines.COURSE), {})
    if path.stat().st_size <= outlines.TAIL:
        assert found.round == (rounds[-1] if rounds else {})
    else:  # rounds grow; one that was repeated after a higher one is looked for near the end only
        near = events_log.rounds(
            filter(None, map(events_log.parse, path.read_bytes()[-outlines.TAIL :].split(b"\n")[1:]))
        )
        assert found.round in whole if rounds else not found.round
        assert not near or int(found.round["round"]) >= int(near[-1]["round"])
    assert found.waits_for == waits.of_run(whole)


def test_a_log_that_is_missing_has_an_empty_outline(tmp_path: Path) -> None:
    assert outlines.of(tmp_path / "none") == outlines.Outline()


def test_a_line_longer_than_any_event_is_passed_over_from_both_ends(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event": "started"}\n{"event": "failed", "error": "' + b"x" * (9 << 20) + b'"}\n')
    assert events_log.read(path) == [{"event": "started"}]
    assert outlines.of(path).last == {"event": "started"}
