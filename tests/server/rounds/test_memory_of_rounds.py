"""What the round loop holds of a model between two rounds: it, as it travels, and nothing else of its size."""

import time
import tracemalloc

import numpy as np
import pytest

from fl_common.messages.arrays import conform, conformed, decode, encode
from fl_common.settings.schema import Settings
from fl_server.rounds.state import State
from fl_server.store.runs import Run
from tests.support.in_process_grid import InProcessGrid
from tests.support.small_rounds import _go, answer, is_train

SIDE = 900  # fewer numbers than need numba, whose import is not to be counted


@pytest.fixture
def traced():
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()


def test_a_model_is_in_memory_once_while_its_clients_train(tmp_path, monkeypatch, traced):
    monkeypatch.setattr("strategies.fedavg.KEPT_BYTES", 0)  # of a model of any size, as of a large one
    model, held = {"w": np.zeros((SIDE, SIDE), np.float32)}, []
    before, size = traced(), model["w"].nbytes

    def client(message):
        if is_train(message):
            grid.sent.clear()
            while len(made.rounds()) < len(held):  # a checkpoint is written meanwhile, in pieces of 16 MB
                time.sleep(0.01)
            held.append((traced() - before) / size)
        return answer(message)

    grid = InProcessGrid({1: client})
    settings = Settings(rounds=4, min_clients=1, fraction_evaluate=0.0, patience=0)
    made = Run.create(tmp_path / "run", settings)
    state = _go(made, settings, grid, State(model))
    assert state.arrays["w"][0, 0] == 4.0
    assert len(held) == 4
    assert max(held) < 1.5


def test_what_a_strategy_returned_in_the_right_form_travels_as_it_is():
    like = {"a": np.zeros((2, 3), np.float32), "n": np.arange(4), "h": np.zeros(3, np.float16)}
    right = encode({"a": np.ones((2, 3), np.float32), "n": np.zeros(4, int), "h": np.ones(3, np.float16)})
    arrays, record = conformed(right, like)
    assert record["a"].data is right["a"].data
    assert record["h"].data is right["h"].data
    assert decode(record["n"]).tolist() == [0, 1, 2, 3]  # integers are kept, never averaged
    assert {name: array.tolist() for name, array in arrays.items()} == {n: decode(record[n]).tolist() for n in like}


@pytest.mark.parametrize(
    "other",
    [
        np.ones(6, np.float32),
        np.ones((2, 3)),
        np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        np.ones((2, 3), ">f4"),
    ],
    ids=["flat", "float64", "fortran", "big-endian"],
)
def test_what_a_strategy_returned_in_another_form_travels_in_the_models(other):
    from flwr.app import Array, ArrayRecord

    like = {"a": np.zeros((2, 3), np.float32)}
    record = ArrayRecord({"a": Array(other)})
    arrays, travels = conformed(record, like)
    assert travels == encode(conform(record, like))
    np.testing.assert_array_equal(decode(travels["a"]), arrays["a"])
