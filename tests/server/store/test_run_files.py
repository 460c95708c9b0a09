"""The files of a run: what is lost or changed of them is seen, put back from the seal or a checkpoint, or refused."""

import json
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from fl_common.errors import StoreError
from fl_common.settings.schema import Settings
from fl_server.store.runs import Checkpoint, Run, listing
from fl_server.store.seals import run_key, seals

CHOSEN = {"rounds": 7, "strategy": "fedadam", "tau": 1e-4, "strategy_args": '{"name": "Zoë"}', "keep_best": ""}


def made(directory: Path, *, rounds: int = 0, **more: object) -> Run:
    run = Run.create(directory, Settings.model_validate(CHOSEN | more))
    run.append({"event": "started", "run": "run"})
    for number in range(1, rounds + 1):
        run.commit(
            Checkpoint(number, {"w": np.full(4, number, np.float32)}),
            {"event": "round", "round": number, "loss": 1 / number},
        )
    return run


def healed(directory: Path) -> tuple[Run, dict[str, str]]:
    """A run that is opened again and healed, and what was wrong with which file."""
    run = Run.open(directory)
    with run.lock():
        return run, {event["file"]: event["detail"] for event in run.reconcile() if "file" in event}


DAMAGES = {
    "emptied": lambda path: path.write_text(""),
    "changed": lambda path: path.write_text(path.read_text().replace("rounds = 7", "rounds = 9")),
    "no TOML": lambda path: path.write_text("rounds = = 3"),
    "nested": lambda path: path.write_text("x = " + "[" * 100_000),
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 9),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_settings_that_were_damaged_are_those_that_the_run_began_with(tmp_path: Path, damage: str) -> None:
    before = made(tmp_path / "run", rounds=1)
    text = (tmp_path / "run" / "settings.toml").read_bytes()
    DAMAGES[damage](tmp_path / "run" / "settings.toml")
    assert "settings.toml" in Run(tmp_path / "run").damage
    run, found = healed(tmp_path / "run")
    assert run.settings == before.settings
    assert list(found) == ["settings.toml"]
    assert (tmp_path / "run" / "settings.toml").read_bytes() == text
    assert run.events()[-1]["event"] == "damaged"
    assert Run(tmp_path / "run").damage == ""


@pytest.mark.parametrize("damage", DAMAGES)
def test_settings_and_seal_that_were_both_lost_come_from_a_checkpoint(tmp_path: Path, damage: str) -> None:
    before = made(tmp_path / "run", rounds=2)
    (tmp_path / "run" / "seal.json").write_text("{")
    DAMAGES[damage](tmp_path / "run" / "settings.toml")
    run, found = healed(tmp_path / "run")
    assert run.settings == before.settings
    assert sorted(found) == ["seal.json", "settings.toml"]
    again = Run.open(tmp_path / "run")
    assert (again.damage, again.files.mine) == ("", False)  # nobody's signature comes back by itself


@pytest.mark.parametrize("damage", ["emptied", "no TOML", "nested", "binary"])
def test_settings_of_which_nothing_is_left_are_refused_and_not_guessed(tmp_path: Path, damage: str) -> None:
    made(tmp_path / "run")
    (tmp_path / "run" / "seal.json").unlink()
    DAMAGES[damage](tmp_path / "run" / "settings.toml")
    with pytest.raises(Exception, match=r"settings\.toml") as refused:
        Run.open(tmp_path / "run")
    assert isinstance(refused.value, StoreError) or "cannot be read as TOML" in str(refused.value)


def test_the_data_of_the_clients_are_put_back(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    run.files.keep("data.json", '{"paths": ["a.csv"], "label": "y", "ignore": []}')
    for damage in (lambda path: path.write_text("{}"), lambda path: path.unlink()):
        damage(tmp_path / "run" / "data.json")
        _, found = healed(tmp_path / "run")
        assert list(found) == ["data.json"]
        assert json.loads((tmp_path / "run" / "data.json").read_text())["label"] == "y"


def test_a_simulation_is_one_whatever_file_was_lost(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", Settings(keep=2), simulated=True)
    run.append({"event": "engine", "engine": "vectorized"})
    for number in (1, 2, 3):
        run.commit(Checkpoint(number, {"w": np.ones(2)}), {"event": "round", "round": number})
    files = sorted(each.relative_to(tmp_path / "run") for each in (tmp_path / "run").rglob("*") if each.is_file())
    assert len(files) > 8
    for lost in files:
        shutil.copytree(tmp_path / "run", tmp_path / "copy")
        (tmp_path / "copy" / lost).unlink()
        found, _ = healed(tmp_path / "copy")
        assert found.simulated, lost
        assert found.settings == run.settings, lost
        shutil.rmtree(tmp_path / "copy")
    assert not made(tmp_path / "deployed", rounds=1).simulated


def test_a_lost_log_has_every_round_again_also_those_whose_checkpoint_is_gone(tmp_path: Path) -> None:
    run = made(tmp_path / "run", rounds=6, keep=2)
    before = run.rounds()
    (tmp_path / "run" / "events.jsonl").unlink()
    assert "events.jsonl is gone" in Run(tmp_path / "run").damage
    again, found = healed(tmp_path / "run")
    assert list(found) == ["events.jsonl"]
    assert again.rounds() == before
    assert Run(tmp_path / "run").damage == ""
    assert healed(tmp_path / "run")[1] == {}


def test_a_damaged_log_keeps_what_can_be_read_and_rounds_are_as_their_manifests_have_them(tmp_path: Path) -> None:
    run = made(tmp_path / "run", rounds=3)
    log = tmp_path / "run" / "events.jsonl"
    before = run.events()
    log.write_bytes(log.read_bytes().replace(b'"loss": 0.5', b'"loss": 0.1').replace(b'"round": 3', b"[[[[[[[[[[[["))
    again, found = healed(tmp_path / "run")
    assert list(found) == ["events.jsonl"]
    assert again.events()[:-1] == before
    with again.lock():
        again.commit(Checkpoint(4, {"w": np.ones(4)}), {"event": "round", "round": 4})
    assert Run(tmp_path / "run").damage == ""


GARBAGE = {
    "a round without its number": b'{"event": "round", "time": "2026-01-01T00:00:00"}',
    "brackets": b"[" * 100_000,
    "brackets in an event": b'{"event": "round", "round": ' + b"[" * 100_000,
    "no text": bytes(range(1, 256)).replace(b"\n", b""),
    "another JSON": b'{"round": 1}',
}


@pytest.mark.parametrize("rounds", [0, 2])
@pytest.mark.parametrize("garbage", GARBAGE)
def test_a_line_that_is_no_event_is_damage_and_hides_nothing(tmp_path: Path, garbage: str, rounds: int) -> None:
    made(tmp_path / "bad", rounds=rounds)
    made(tmp_path / "good", rounds=1)
    with (tmp_path / "bad" / "events.jsonl").open("ab") as log:
        log.write(GARBAGE[garbage] + b"\n")
    bad, good = listing(tmp_path)
    assert "is no event" in bad.damage
    assert len(bad.damage) < 300
    assert (good.damage, len(bad.rounds())) == ("", rounds)
    assert healed(tmp_path / "bad")[0].damage == ""


@pytest.mark.parametrize("begin", [b"", b'{"event": "'])
def test_a_line_of_any_length_is_damage_and_is_never_held(tmp_path: Path, begin: bytes) -> None:
    run = made(tmp_path / "run", rounds=1)
    with (tmp_path / "run" / "events.jsonl").open("ab") as log:
        log.write(begin)
        log.truncate(log.tell() + (100 << 20))
        log.seek(0, 2)
        log.write(b"\n")
    run.append({"event": "warning", "text": "after it"})
    tracemalloc.start()
    try:
        assert "is no event" in Run(tmp_path / "run").damage
        again, found = healed(tmp_path / "run")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 << 20
    assert list(found) == ["events.jsonl"]
    assert again.damage == ""
    assert [event["event"] for event in again.events()] == ["started", "round", "warning", "damaged"]


def test_a_finished_run_has_a_sum_of_its_whole_log(tmp_path: Path) -> None:
    run = made(tmp_path / "run", rounds=2)
    run.append({"event": "finished", "rounds": 2, "accuracy": 0.5})
    run.seal_log()
    assert Run(tmp_path / "run").damage == ""
    log = tmp_path / "run" / "events.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"accuracy": 0.5', b'"accuracy": 0.9'))
    assert "events.jsonl is damaged" in Run(tmp_path / "run").damage
    assert list(healed(tmp_path / "run")[1]) == ["events.jsonl"]
    again = Run(tmp_path / "run")
    assert again.damage == ""
    with again.lock():
        again.commit(Checkpoint(3, {"w": np.ones(4)}), {"event": "round", "round": 3})
    assert again.damage == ""
    log.write_bytes(log.read_bytes().replace(b'"finished"', b'"stopped_"'))
    assert "events.jsonl is damaged" in Run(tmp_path / "run").damage


def test_a_line_that_a_crash_tore_is_no_damage(tmp_path: Path) -> None:
    run = made(tmp_path / "run", rounds=1)
    with (tmp_path / "run" / "events.jsonl").open("ab") as log:
        log.write(b'{"event": "wai')
    assert Run(tmp_path / "run").damage == ""
    run.append({"event": "finished", "rounds": 1})
    assert Run(tmp_path / "run").damage == ""
    assert run.status == "finished"


def test_a_run_of_another_user_is_not_this_ones_and_writing_it_does_not_make_it_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FL_RUN_KEY", str(tmp_path / "other.key"))
    made(tmp_path / "run", rounds=1)
    assert Run.open(tmp_path / "run").files.mine
    monkeypatch.setenv("FL_RUN_KEY", str(tmp_path / "own.key"))
    run = Run.open(tmp_path / "run")
    assert not run.files.mine
    run.files.keep("data.json", "{}")
    assert not Run.open(tmp_path / "run").files.mine
    run.files.sign()
    assert Run.open(tmp_path / "run").files.mine
    assert (tmp_path / "own.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("change", ["changed", "added", "gone"])
def test_a_task_that_was_changed_is_no_longer_what_was_sealed(tmp_path: Path, change: str) -> None:
    run = made(tmp_path / "run")
    task = tmp_path / "run" / "task"
    task.mkdir()
    (task / "mine.py").write_text("x = 1")
    run.files.keep_task()
    assert Run.open(tmp_path / "run").files.mine
    if change == "gone":
        (task / "mine.py").unlink()
    else:
        (task / ("mine.py" if change == "changed" else "numpy.py")).write_text("x = 2")
    again = Run.open(tmp_path / "run")
    assert not again.files.mine
    assert "task/" in again.damage
    again.files.sign()
    assert Run.open(tmp_path / "run").files.mine


def test_what_python_compiled_of_a_task_is_not_run_for_it(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    compiled = tmp_path / "run" / "task" / "__pycache__"
    compiled.mkdir(parents=True)
    (compiled / "mine.cpython-313.pyc").write_bytes(b"anything")
    run.files.forget_compiled()
    assert not compiled.exists()


def test_a_user_without_a_place_for_a_key_makes_runs_without_a_seal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FL_RUN_KEY", str(tmp_path / "file" / "run.key"))
    run = made(tmp_path / "run", rounds=1)
    run.files.keep("data.json", "{}")
    assert caplog.text.count("--trust") == 1
    assert not Run.open(run.directory).files.mine


def test_a_key_by_a_relative_path_would_be_another_in_each_folder_and_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FL_RUN_KEY", "run.key")
    made(tmp_path / "run")
    assert f"must be an absolute path; got run.key. Set it to {tmp_path / 'run.key'}" in caplog.text
    assert not (tmp_path / "run.key").exists()


def test_a_damaged_key_signs_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key = tmp_path / "run.key"
    monkeypatch.setenv("FL_RUN_KEY", str(key))
    run_key.made()
    assert made(tmp_path / "one").files.mine
    key.write_text("short")
    assert not Run.open(tmp_path / "one").files.mine
    made(tmp_path / "two")
    assert "damaged" in caplog.text


@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b'{"seal": {}}', b"\xff\xfe", b"null"])
def test_a_seal_that_is_anything_is_damaged_and_no_traceback(tmp_path: Path, content: bytes) -> None:
    run = made(tmp_path / "run", rounds=1)
    (tmp_path / "run" / "seal.json").write_bytes(content)
    with pytest.raises(StoreError, match=r"seal\.json is damaged"):
        seals.read(run.directory)
    assert Run.open(tmp_path / "run").settings == run.settings


def flipped(content: bytes, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    changed = bytearray(content or b"x")
    for place in rng.integers(0, len(changed), 3):
        changed[place] ^= int(rng.integers(1, 256))
    return bytes(changed)


def test_no_damage_of_one_file_costs_more_than_a_round_or_anything_of_the_settings(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", Settings.model_validate(CHOSEN | {"keep": 2}), simulated=True)
    run.files.keep("data.json", '{"paths": ["a.csv"], "label": "y", "ignore": []}')
    for number in (1, 2, 3):
        run.commit(Checkpoint(number, {"w": np.ones(9)}), {"event": "round", "round": number, "loss": 0.5})
    rounds = run.rounds()
    files = [each for each in sorted((tmp_path / "run").rglob("*")) if each.is_file() and each.name != ".lock"]
    for file in files:
        whole = file.read_bytes()
        nested = b'{"seal": ' + b"[" * 100_000
        for content in [
            b"",
            whole[: len(whole) // 2],
            whole[:-1],
            nested,
            *(flipped(whole, seed) for seed in range(6)),
        ]:
            shutil.copytree(tmp_path / "run", tmp_path / "copy")
            damaged = tmp_path / "copy" / file.relative_to(tmp_path / "run")
            damaged.write_bytes(content)
            what = (damaged.relative_to(tmp_path / "copy"), content[:60])
            found, _ = healed(tmp_path / "copy")
            latest = found.latest()
            assert latest is not None, what
            assert latest.round >= 2, what
            assert (found.settings, found.simulated) == (run.settings, True), what
            assert "a.csv" in (tmp_path / "copy" / "data.json").read_text(), what
            assert [event["round"] for event in found.rounds()] == [1, 2, 3], what
            assert found.rounds() == rounds, what
            shutil.rmtree(tmp_path / "copy")


def test_a_link_in_a_run_of_somebody_else_has_nothing_written_elsewhere(tmp_path: Path) -> None:
    run = made(tmp_path / "run", rounds=1)
    own = tmp_path / "precious"
    own.write_text("precious")
    (run.directory / ".lock").unlink()
    (run.directory / ".lock").symlink_to(own)
    with pytest.raises(StoreError, match=r"lock .*\.lock"), run.lock():
        pass
    assert own.read_text() == "precious"
