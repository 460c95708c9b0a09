"""Which checkpoints stay: the newest few and the best, over resumes and damage."""

import numpy as np
import pytest

from fl_common.errors import StoreError
from fl_common.settings.schema import Settings
from fl_server.store import checkpoints
from fl_server.store.runs import Checkpoint, Run

LOSSES = [0.9, 0.2, 0.5, 0.4, 0.2, 0.8]


def made(directory, losses=LOSSES, **settings):
    run = Run.create(directory, Settings(keep=2, **settings))
    for number, loss in enumerate(losses, 1):
        commit(run, number, loss)
    return run


def commit(run, number, loss):
    event = {"event": "round", "round": number, "loss": loss, "accuracy": loss, "metrics": {"f1": loss}}
    run.commit(Checkpoint(number, {"w": np.full(3, number, np.float32)}), event)


def kept(run):
    return checkpoints.numbers(run.directory / "checkpoints")


@pytest.mark.parametrize(
    ("keep_best", "expected", "best"),
    [("loss", [2, 5, 6], 2), ("accuracy", [1, 5, 6], 1), ("f1:max", [1, 5, 6], 1), ("", [5, 6], None),
     ("unknown:min", [5, 6], None)],
)  # fmt: skip
def test_the_newest_and_the_best_stay(tmp_path, keep_best, expected, best):
    run = made(tmp_path, keep_best=keep_best)
    assert kept(run) == expected
    found = Run.open(tmp_path).best()
    assert (found.round if found else None) == best


def test_a_resumed_run_knows_its_best_round(tmp_path):
    made(tmp_path)
    run = Run.open(tmp_path)
    commit(run, 7, 0.3)
    commit(run, 8, 0.1)
    commit(run, 9, 0.3)
    commit(run, 10, 0.3)
    assert kept(run) == [8, 9, 10]


def test_the_best_of_a_course_that_was_given_up_goes_with_it(tmp_path):
    run = made(tmp_path, [0.5, 0.6, 0.7])
    commit(run, 4, 0.1)
    commit(run, 3, 0.6)  # resumed from round 2: the newer ones were damaged
    assert kept(run) == [3]
    assert run.best().round == 3


def test_a_diverged_round_is_never_the_best(tmp_path):
    assert made(tmp_path, [None, 0.5, None, None]).best().round == 2
    assert Run.open(tmp_path).best().round == 2


def test_a_damaged_best_checkpoint_is_an_error_that_names_it(tmp_path):
    run = made(tmp_path)
    (tmp_path / "checkpoints" / "0002" / "arrays.npz").write_bytes(b"x")
    with pytest.raises(StoreError, match=r"best round, 2, is damaged: .*SHA-256"):
        run.best()
