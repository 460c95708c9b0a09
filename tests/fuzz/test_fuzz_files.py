"""Files of any content: a run's events, checkpoints and a client's own data are read, or refused with an error."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fl_common.errors import DataError, ParterreError, StoreError
from fl_common.settings.schema import Settings
from fl_common.tasks.client_data.files import DataOptions, load
from fl_server.store import checkpoints
from fl_server.store.checkpoints import Checkpoint
from fl_server.store.log import events_log
from tests.fuzz import EXAMPLES
from tests.fuzz.test_fuzz_replies import mutated

FUZZ = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
EVENT = {"event": "round", "round": 1, "time": "2026-01-01T00:00:00.000+00:00"}


@FUZZ
@given(st.one_of(st.binary(max_size=200), st.text(max_size=100).map(str.encode)))
def test_a_log_of_any_bytes_has_the_events_that_are_whole(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(content + b"\n" + b'{"event": "round", "round": 1}\n')
    found = events_log.read(path)
    assert found[-1] == {"event": "round", "round": 1}
    assert all(isinstance(event, dict) and "event" in event for event in found)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    arrays = {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}
    directory = checkpoints.write(tmp_path_factory.mktemp("good"), Checkpoint(1, arrays, {"m": np.ones(2)}), EVENT)
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@FUZZ
@given(st.data())
def test_a_checkpoint_that_was_changed_is_whole_or_damaged(
    tmp_path: Path, written: dict[str, bytes], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(written)))
    changed = data.draw(st.one_of(mutated(written[name]), st.binary(max_size=50)))
    for each, content in written.items():
        (tmp_path / each).write_bytes(changed if each == name else content)
    try:
        read, event = checkpoints.read(tmp_path)
    except StoreError:
        return
    assert changed == written[name] or event == EVENT  # white space in the manifest is no damage
    assert read.arrays["w"].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]


@FUZZ
@given(st.sampled_from([".npz", ".csv", ".parquet", ".png"]), st.binary(max_size=200))
def test_data_of_any_bytes_are_examples_or_refused_in_words(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"own{suffix}"
    path.write_bytes(content)
    try:
        load(path, DataOptions(), Settings())
    except ParterreError as error:
        assert isinstance(error, DataError)
        assert str(error)
