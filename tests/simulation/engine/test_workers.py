"""Workers, parts and steps: how a cohort is divided, and that nothing of it is lost."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_simulation.engine.parts import UNLIKE, groups, shares
from fl_simulation.engine.ways.steps import Steps
from fl_simulation.engine.work import TrainingCohort
from fl_simulation.engine.workers import Workers

sizes = st.lists(st.integers(1, 300), min_size=1, max_size=30)


def test_results_come_in_the_order_of_the_parts_and_a_worker_takes_the_next_when_it_is_done():
    def work(worker: int, part: int) -> tuple[str, int]:
        time.sleep(0.2 if part == 0 else 0.001)
        return threading.current_thread().name, part

    results = Workers(2).map(work, range(8))
    assert [part for _, part in results] == list(range(8))
    names = [name for name, _ in results]
    assert len(set(names)) == 2
    assert names.count(names[0]) == 1


@pytest.mark.parametrize("count", [1, 3])
def test_what_one_worker_raises_is_raised(count):
    def work(worker: int, part: int) -> int:
        if part == 2:
            raise ValueError("part 2")
        return part

    with pytest.raises(ValueError, match="part 2"):
        Workers(count).map(work, range(5))


@given(sizes=sizes, parts=st.integers(1, 9))
def test_shares_hold_each_client_once_and_are_nearly_equal(sizes, parts):
    steps = np.array(sizes)
    found = shares(steps, parts)
    assert sorted(np.concatenate(found).tolist()) == list(range(len(sizes)))
    loads = [int(steps[places].sum()) for places in found]
    assert max(loads) - min(loads) <= max(sizes)


@given(sizes=sizes)
def test_groups_hold_each_client_once_and_those_of_a_group_are_alike(sizes):
    steps = np.array(sizes)
    found = groups(steps)
    assert sorted(np.concatenate(found).tolist()) == list(range(len(sizes)))
    assert all(steps[group].max() <= UNLIKE * steps[group].min() for group in found)


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6), batch=st.integers(1, 50), epochs=st.integers(1, 3))
def test_steps_take_each_clients_rows_in_the_order_of_its_plan(sizes, batch, epochs):
    starts = np.cumsum([0, *sizes])
    rows = [np.arange(start, start + size, dtype=np.int32) for start, size in zip(starts, sizes, strict=False)]
    cohort = TrainingCohort.of(1, range(len(sizes)), rows, batch_size=batch, epochs=epochs, seed=3)
    steps = Steps(cohort)
    for place, client in enumerate(steps.order):
        taken = [row[:size] for row, size in zip(steps.rows[:, place], steps.sizes[:, place], strict=True) if size]
        assert np.array_equal(np.concatenate(taken), cohort.plan(client).ravel())
        assert steps.fresh[steps.sizes[:, place] > 0, place].sum() == epochs
        assert set(steps.rows[:, place].ravel()) <= set(rows[client])
    assert steps.active.tolist() == (steps.sizes > 0).sum(axis=1).tolist()
