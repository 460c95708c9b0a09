"""The rules as such: what holds for any models, and that every way of computing one gives the same."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.rules import centres, networks, ordering, selection
from strategies.rules.geometry import combination, gram, norms, squared_distances
from strategies.rules.tiles import swept


def models_of(count, size=40, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return [{"w": rng.standard_normal(size).astype(dtype)} for _ in range(count)]


def stacked(models):
    return np.stack([model["w"] for model in models])


@pytest.mark.parametrize("rows", [*range(1, 13)])
def test_a_sorting_network_sorts_every_sequence_of_zeros_and_ones(rows):
    """Which, by the 0-1 principle, means every sequence."""
    room = np.array(list(itertools.product([0.0, 1.0], repeat=rows)), np.float32).T.copy()
    ordering._exchanged(room, networks.sorting(rows))
    assert (np.diff(room, axis=0) >= 0).all()


@pytest.mark.parametrize("rows", range(1, 12))
def test_a_selecting_network_puts_the_middle_ranks_in_the_middle_rows(rows):
    whole = np.array(list(itertools.product([0.0, 1.0], repeat=rows)), np.float32).T
    for first in range((rows + 1) // 2):
        room = ordering._exchanged(whole.copy(), networks.selecting(rows, first, rows - first))
        expected = np.sort(whole, axis=0)[first : rows - first].sum(axis=0)
        assert np.array_equal(room[first : rows - first].sum(axis=0), expected)
    assert len(networks.selecting(rows, 0, rows)) == 0


@given(st.integers(1, 20), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_the_median_is_numpys(count, seed):
    models = models_of(count, 300, seed)
    expected = np.median(stacked(models).astype(np.float64), axis=0).astype(np.float32)
    assert np.array_equal(ordering.median(models, ["w"])["w"], expected)


@given(st.integers(1, 20), st.data())
@settings(max_examples=30, deadline=None)
def test_the_trimmed_mean_is_that_of_the_sorted_values(count, data):
    models, cut = models_of(count, 300, data.draw(st.integers(0, 10**6))), data.draw(st.integers(0, (count - 1) // 2))
    expected = np.sort(stacked(models), axis=0)[cut : count - cut].mean(axis=0, dtype=np.float64)
    assert ordering.trimmed_mean(models, ["w"], cut)["w"] == pytest.approx(expected, rel=1e-6, abs=1e-7)


@given(st.integers(1, 15), st.data())
@settings(max_examples=40, deadline=None)
def test_the_values_around_the_median_are_the_nearest_to_it(count, data):
    keep = data.draw(st.integers(1, count))
    models = models_of(count, 150, data.draw(st.integers(0, 10**6)))
    values = stacked(models).astype(np.float64)
    far = np.abs(values - np.median(values, axis=0))
    nearest = np.take_along_axis(values, np.argsort(far, axis=0)[:keep], axis=0).mean(axis=0)
    got = ordering.mean_around_median(models, ["w"], keep)["w"]
    # Of two values as far off as each other, either may be taken
    ties = np.isclose(np.sort(far, axis=0)[keep - 1], np.sort(far, axis=0)[min(keep, count - 1)], rtol=1e-6)
    assert got[~ties] == pytest.approx(nearest[~ties], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", [1, 2, 7, 30])
def test_compiled_and_numpy_ordering_agree(count, dtype):
    models, cut, keep = models_of(count, 20_001, 5, dtype), (count - 1) // 3, (count + 1) // 2
    for rule, arguments in (
        (ordering.median, ()),
        (ordering.trimmed_mean, (cut,)),
        (ordering.mean_around_median, (keep,)),
    ):
        ours, theirs = (rule(models, ["w"], *arguments, compiled=each)["w"] for each in (True, False))
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)
        assert ours.dtype == dtype


@pytest.mark.parametrize("count", [3, 200])
def test_few_columns_and_many_models_go_through_partition(count):
    models = models_of(count, 300)
    values = np.sort(stacked(models), axis=0)
    assert ordering.median(models, ["w"])["w"] == pytest.approx(np.median(values, axis=0), abs=1e-6)
    narrow = [{"w": model["w"][:5]} for model in models]
    assert np.array_equal(ordering.median(narrow, ["w"])["w"], ordering.median(models, ["w"])["w"][:5])


@given(st.integers(3, 15), st.data())
@settings(max_examples=40, deadline=None)
def test_a_minority_leaves_median_and_trimmed_mean_within_the_honest_range(count, data):
    f = data.draw(st.integers(0, (count - 1) // 2))
    honest = models_of(count - f, 20, data.draw(st.integers(0, 10**6)))
    wild = st.floats(-(2.0**127), 2.0**127, width=32, allow_subnormal=False)  # TensorFlow flushes these to zero
    hostile = [{"w": np.array(data.draw(st.lists(wild, min_size=20, max_size=20)), np.float32)} for _ in range(f)]
    lowest, highest = stacked(honest).min(axis=0), stacked(honest).max(axis=0)
    everyone = data.draw(st.permutations([*honest, *hostile]))
    for result in (ordering.median(everyone, ["w"])["w"], ordering.trimmed_mean(everyone, ["w"], f)["w"]):
        assert (lowest <= result).all()
        assert (result <= highest).all()


@given(st.permutations(range(9)), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_no_rule_looks_at_the_order_of_the_models(order, seed):
    models = models_of(9, 60, seed)
    moved, names = [models[place] for place in order], ["w"]
    assert np.array_equal(ordering.median(models, names)["w"], ordering.median(moved, names)["w"])
    np.testing.assert_allclose(
        ordering.trimmed_mean(models, names, 2)["w"], ordering.trimmed_mean(moved, names, 2)["w"], rtol=1e-6, atol=1e-7
    )
    origin = {"w": np.zeros(60, np.float32)}
    before, after = (gram(each, names, origin) for each in (models, moved))
    for rule in (lambda d: selection.krum(d, 2, 3), lambda d: selection.bulyan(d, 1)):
        chosen = set(rule(squared_distances(before)).tolist())
        assert chosen == {order[place] for place in rule(squared_distances(after))}
    ones = np.ones(9)
    shares = centres.geometric_median(before, ones)
    np.testing.assert_allclose(shares[list(order)], centres.geometric_median(after, ones), atol=1e-7)


@given(st.integers(0, 3), st.floats(1e3, 1e38), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_krum_and_bulyan_never_choose_what_is_far_from_the_rest_and_the_geometric_median_stays(f, far, seed):
    honest = models_of(4 * f + 3 - f, 30, seed)
    rng = np.random.default_rng(seed)
    hostile = [{"w": (rng.choice([-1, 1], 30) * far).astype(np.float32)} for _ in range(f)]
    origin = {"w": np.zeros(30, np.float32)}
    inner = gram([*honest, *hostile], ["w"], origin)
    distances = squared_distances(inner)
    assert (selection.krum(distances, f, len(honest)) < len(honest)).all()
    chosen = selection.bulyan(distances, f)
    assert len(chosen) == 2 * f + 3
    assert (chosen < len(honest)).all()
    median = combination([*honest, *hostile], ["w"], centres.geometric_median(inner, np.ones(len(inner))), origin)["w"]
    # Lopuhaä and Rousseeuw 1991: |median| <= 2 (n - f) / (n - 2f) max |honest|
    bound = 2 * len(honest) / (len(honest) - f) * np.linalg.norm(stacked(honest), axis=1).max()
    assert np.linalg.norm(median) <= bound


def test_krum_of_an_honest_majority_that_agrees_is_that_model_and_the_geometric_median_is_too():
    same = {"w": np.linspace(-1, 1, 30).astype(np.float32)}
    models = [same, models_of(1, 30)[0], same, same, same]
    origin = {"w": np.zeros(30, np.float32)}
    inner = gram(models, ["w"], origin)
    assert selection.krum(squared_distances(inner), 1)[0] == 0
    shares = centres.geometric_median(inner, np.ones(5))
    np.testing.assert_allclose(combination(models, ["w"], shares, origin)["w"], same["w"], atol=1e-5)


def test_distances_do_not_lose_their_digits_where_models_are_large_and_close():
    current = {"w": np.full(1000, 300.0, np.float32)}
    models = [{"w": current["w"] + np.float32(step)} for step in (0.001, 0.002, 0.004)]
    true = np.array([[np.sum((a["w"].astype(float) - b["w"]) ** 2) for a in models] for b in models])
    np.testing.assert_allclose(squared_distances(gram(models, ["w"], current)), true, rtol=1e-9, atol=1e-15)


def test_a_model_beyond_the_range_of_numbers_is_infinitely_far():
    models = [*models_of(3, 10, dtype=np.float64), {"w": np.full(10, 1e200)}]
    inner = gram(models, ["w"], {"w": np.zeros(10)})
    distances = squared_distances(inner)
    assert np.isinf(distances[3, :3]).all()
    assert np.isfinite(distances[:3, :3]).all()
    assert centres.geometric_median(inner, np.ones(4))[3] == 0
    bounded = centres.centered_clipping(
        gram([*models, {"w": np.zeros(10)}], ["w"], {"w": np.zeros(10)}), np.ones(4), bound=1.0
    )
    assert bounded[3] == 0
    assert np.isfinite(bounded).all()


@given(st.lists(st.floats(0.1, 100), min_size=4, max_size=4), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_the_geometric_median_has_the_least_sum_of_distances_by_weight(weights, seed):
    points = np.random.default_rng(seed).standard_normal((4, 3))
    shares = centres.geometric_median(points @ points.T, np.array(weights))
    found = shares @ points
    cost = np.array(weights) @ np.linalg.norm(points - found, axis=1)
    for step in np.concatenate([np.eye(3), -np.eye(3)]) * 0.01:
        assert cost <= np.array(weights) @ np.linalg.norm(points - found - step, axis=1) + 1e-6


@given(st.floats(0.01, 10), st.integers(1, 5), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_centered_clipping_moves_at_most_by_its_bound_in_each_iteration(bound, iterations, seed):
    models = [*models_of(5, 12, seed), {"w": np.zeros(12, np.float32)}]
    models[2]["w"] *= 1e15
    origin = {"w": np.zeros(12, np.float32)}
    coefficients = centres.centered_clipping(
        gram(models, ["w"], origin), np.ones(5), bound=bound, iterations=iterations
    )
    moved = combination(models, ["w"], coefficients, origin)["w"]
    assert np.linalg.norm(moved.astype(float)) <= bound * iterations * 1.001


def test_one_thread_and_three_see_every_tile_once():
    models = models_of(3, 300_007)
    names = ["w"]
    whole = np.stack([model["w"] for model in models]).astype(float)
    for threads in (1, 3):
        sums = swept(models, names, lambda tiles: sum(room.sum(dtype=float) for room, _ in tiles), threads=threads)
        assert len(sums) == threads
        assert sum(sums) == pytest.approx(whole.sum())
    origin = models_of(1, 300_007, seed=9)[0]
    np.testing.assert_allclose(gram(models, names, origin), (whole - origin["w"]) @ (whole - origin["w"]).T, rtol=1e-9)
    np.testing.assert_allclose(norms(models, names, origin), np.linalg.norm(whole - origin["w"], axis=1))


def test_shapes_dtypes_and_complex_numbers_come_out_as_they_went_in():
    rng = np.random.default_rng(1)
    like = {
        "half": (2, 3, np.float16),
        "double": (5, 1, np.float64),
        "wave": (3, 2, np.complex64),
        "none": (0, 4, np.float32),
    }
    models = [
        {
            name: rng.standard_normal((a, b)).astype(kind) + kind(1j if kind is np.complex64 else 0)
            for name, (a, b, kind) in like.items()
        }
        for _ in range(3)
    ]
    names = list(like)
    for result in (
        ordering.median(models, names),
        combination(models, names, np.full(3, 1 / 3), models[0]),
    ):
        assert {name: (each.shape, each.dtype) for name, each in result.items()} == {
            name: ((a, b), np.dtype(kind)) for name, (a, b, kind) in like.items()
        }
    assert ordering.median(models, names)["wave"][0, 0].imag == 1
