"""Leases: no two clients hold one slot, slots are dense, and a newcomer takes the place of the one it replaces."""

from hypothesis import given, settings
from hypothesis import strategies as st

from fl_server.rounds.clients.leases import Leases

fleets = st.lists(st.sets(st.integers(0, 2**63 - 1), max_size=8), max_size=8)
limits = st.integers(0, 5)


def after(fleet_by_round, limit=0):
    leases = Leases(limit)
    for nodes in fleet_by_round:
        leases = leases.renew(nodes)
    return leases


@settings(max_examples=100)
@given(fleets, limits)
def test_no_two_nodes_hold_one_slot_and_only_those_present_hold_any(rounds, limit):
    leases = Leases(limit)
    for nodes in rounds:
        leases = leases.renew(nodes)
        assert len(set(leases.slots.values())) == len(leases.slots)
        assert set(leases.slots) <= set(nodes)
        assert all(0 <= slot < leases.partitions for slot in leases.slots.values())
        assert len(leases.slots) == (min(limit, len(nodes)) if limit else len(nodes))


def test_a_new_node_has_the_slot_that_it_is_to_have_where_that_is_free():
    leases = Leases(3).renew({7}, lambda: {7: 2})
    assert leases.slots == {7: 2}
    leases = leases.renew({5, 6, 7}, lambda: {5: 2, 6: 1, 8: 0})
    assert leases.slots == {5: 0, 6: 1, 7: 2}  # 2 is held by another, so 5 takes what is left
    assert Leases(2).renew({9}, lambda: {9: 5}).slots == {9: 0}  # there is no slot 5


@settings(max_examples=100)
@given(fleets, limits)
def test_who_stays_keeps_its_slot(rounds, limit):
    leases = Leases(limit)
    for nodes in rounds:
        before, leases = leases, leases.renew(nodes)
        stayed = set(before.slots) & set(nodes)
        assert all(leases.slots[node] == before.slots[node] for node in stayed)


@settings(max_examples=50)
@given(st.sets(st.integers(0, 2**63 - 1), min_size=1, max_size=8), limits)
def test_slots_of_a_first_fleet_are_dense(nodes, limit):
    leases = after([nodes], limit)
    assert sorted(leases.slots.values()) == list(range(len(leases.slots)))
    assert leases.nodes() == sorted(nodes)[: len(leases.slots)]


@settings(max_examples=50)
@given(st.sets(st.integers(0, 1000), min_size=2, max_size=8), st.data())
def test_a_replacement_takes_the_freed_slot(nodes, data):
    leases = after([nodes])
    gone = data.draw(st.sampled_from(sorted(nodes)))
    replaced = leases.renew(nodes - {gone} | {2000})
    assert replaced.slots[2000] == leases.slots[gone]
    assert replaced.partitions == leases.partitions


def test_partitions_grow_with_the_fleet_and_never_shrink():
    assert after([{1}, {1, 2, 3}, {1}]).partitions == 3


def test_a_limit_leaves_spares_and_fixes_the_number_of_partitions():
    leases = after([{5, 6, 7}], limit=2)
    assert (dict(leases.slots), leases.partitions) == ({5: 0, 6: 1}, 2)
    assert dict(leases.renew({6, 7}).slots) == {6: 1, 7: 0}  # the spare steps in


@settings(max_examples=50)
@given(st.permutations([11, 3, 99, 42]))
def test_the_order_in_which_nodes_are_listed_does_not_show(nodes):
    assert dict(after([nodes]).slots) == {3: 0, 11: 1, 42: 2, 99: 3}
