import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_common.data.batches import batches, plan, seeds, seeds_of, shuffled, steps
from fl_common.errors import DataError

small = st.integers(1, 70)


@given(examples=small, epochs=st.integers(1, 4), seed=st.integers(0, 2**31 - 1))
def test_each_epoch_visits_every_example_once(examples, epochs, seed):
    epochs_planned = plan(examples, 8, epochs, seed=seed, round=1, client=2)
    assert len(epochs_planned) == epochs
    for order in epochs_planned:
        assert order.dtype == np.int32
        assert sorted(order) == list(range(examples))


@given(examples=small, batch_size=small)
def test_only_the_last_batch_may_be_ragged_and_none_is_padded(examples, batch_size):
    (order,) = plan(examples, batch_size, 1, seed=0, round=1, client=0)
    cut = batches(order, batch_size)
    assert len(cut) == steps(examples, batch_size)
    assert [len(batch) for batch in cut[:-1]] == [batch_size] * (len(cut) - 1)
    assert np.array_equal(np.concatenate(cut), order)


def test_the_plan_is_the_same_on_every_machine():
    first, second = plan(8, 4, 2, seed=7, round=3, client=1)
    assert first.tolist() == [5, 4, 2, 6, 0, 7, 3, 1]
    assert second.tolist() == [6, 3, 4, 0, 7, 2, 1, 5]


def test_seed_round_client_and_epoch_each_change_the_order():
    base = {"seed": 1, "round": 1, "client": 1}
    changed = [base | {key: 2} for key in base]
    orders = [plan(50, 8, 1, **moment)[0].tolist() for moment in (base, *changed)]
    orders.append(plan(50, 8, 2, **base)[1].tolist())
    assert len({tuple(order) for order in orders}) == 5


def test_more_epochs_do_not_change_the_first():
    one, three = plan(20, 8, 1, seed=1, round=1, client=1), plan(20, 8, 3, seed=1, round=1, client=1)
    assert np.array_equal(one[0], three[0])


def test_seeds_are_int64_below_two_to_the_31_and_a_longer_list_begins_with_the_shorter():
    many = seeds(200, seed=2, round=9, client=4)
    assert many.dtype == np.int64
    assert 0 <= many.min() <= many.max() < 2**31
    assert np.array_equal(many[:3], seeds(3, seed=2, round=9, client=4))
    assert not np.array_equal(many, seeds(200, seed=2, round=9, client=5))


def test_no_example_is_an_error_that_says_what_to_do():
    with pytest.raises(DataError, match=r"at least 1 example.*got 0, 32, 1"):
        plan(0, 32, 1, seed=0, round=0, client=0)


@given(
    sizes=st.lists(small, min_size=1, max_size=5),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 2**31 - 1),
    round=st.integers(0, 10**6),
    first=st.integers(0, 10**6),
)
def test_many_clients_plans_in_bulk_are_the_plans_one_by_one(sizes, epochs, seed, round, first):
    clients = [first + 3 * place for place in range(len(sizes))]
    rows = [np.arange(size, dtype=np.int32)[::-1] * 7 for size in sizes]
    whole = shuffled(rows, clients, epochs, seed=seed, round=round)
    alone = [
        mine[order]
        for client, mine in zip(clients, rows, strict=True)
        for order in plan(len(mine), 8, epochs, seed=seed, round=round, client=client)
    ]
    assert whole.dtype == np.int32
    assert np.array_equal(whole, np.concatenate(alone))


@given(count=st.integers(0, 9), seed=st.integers(0, 2**31 - 1), clients=st.lists(st.integers(0, 10**6), min_size=1))
def test_many_clients_seeds_in_bulk_are_the_seeds_one_by_one(count, seed, clients):
    whole = seeds_of(count, clients, seed=seed, round=4)
    assert whole.shape == (len(clients), count)
    assert np.array_equal(whole, np.stack([seeds(count, seed=seed, round=4, client=client) for client in clients]))
