import json

from fl_server.store.log.new_events import NewEvents


def append(store, run, *events):
    path = store / run / "events.jsonl"
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write("".join(json.dumps(event) + "\n" for event in events))
    return path


def kinds(watch):
    return [(run, event["event"]) for run, event in watch.fresh()]


def test_a_watch_tells_each_event_once_of_every_run(tmp_path):
    watch = NewEvents(tmp_path)
    assert kinds(watch) == []
    append(tmp_path, "b", {"event": "started"})
    append(tmp_path, "a", {"event": "started"}, {"event": "round", "round": 1})
    assert kinds(watch) == [("a", "started"), ("a", "round"), ("b", "started")]
    append(tmp_path, "b", {"event": "finished"})
    assert kinds(watch) == [("b", "finished")]
    assert kinds(watch) == []


def test_a_line_that_is_not_whole_is_told_when_it_is(tmp_path):
    watch = NewEvents(tmp_path)
    path = append(tmp_path, "a", {"event": "started"})
    with path.open("a") as file:
        file.write('{"event": "ro')
    assert kinds(watch) == [("a", "started")]
    with path.open("a") as file:
        file.write('und", "round": 1}\n')
    assert kinds(watch) == [("a", "round")]


def test_a_watch_may_begin_with_what_comes_next(tmp_path):
    append(tmp_path, "a", {"event": "started"})
    watch = NewEvents(tmp_path, skip_past=True)
    append(tmp_path, "a", {"event": "round", "round": 1})
    assert kinds(watch) == [("a", "round")]


def test_a_run_begun_anew_under_the_same_name_is_told_from_its_start(tmp_path):
    watch = NewEvents(tmp_path)
    path = append(tmp_path, "a", {"event": "started"}, {"event": "round", "round": 1})
    assert len(kinds(watch)) == 2
    path.unlink()
    append(tmp_path, "a", {"event": "started"})
    assert kinds(watch) == [("a", "started")]


def test_a_log_that_cannot_be_read_hides_no_other_run(tmp_path):
    append(tmp_path, "b", {"event": "started"})
    (tmp_path / "a" / "events.jsonl").mkdir(parents=True)
    (tmp_path / "c" / "events.jsonl" / "x").mkdir(parents=True)
    watch = NewEvents(tmp_path)
    assert kinds(watch) == [("b", "started")]
    append(tmp_path, "b", {"event": "finished"})
    assert kinds(watch) == [("b", "finished")]
