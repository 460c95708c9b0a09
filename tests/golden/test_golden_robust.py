"""The robust rules, with numbers worked out by hand: through real replies, a strategy each."""

import numpy as np
import pytest

from strategies.bulyan import Bulyan
from strategies.centered_clipping import CenteredClipping
from strategies.krum import Krum, MultiKrum
from strategies.median import Median
from strategies.norm_clipping import NormClipping
from strategies.rfa import RFA
from strategies.rules import centres
from strategies.trimmed_mean import TrimmedMean
from tests.support.strategy_messages import begin, reply


def next_model(strategy, current, models, examples=None):
    """One round from `current`; a client each for `models`."""
    begin(strategy, {"w": np.array(current, np.float32)}, nodes=len(models))
    replies = [
        reply({"w": np.array(model, np.float32)}, examples[n] if examples else 1, node=n + 1)
        for n, model in enumerate(models)
    ]
    arrays, _ = strategy.aggregate_train(1, iter(replies))
    return arrays["w"].numpy().tolist()


def test_the_median_of_five_and_of_four():
    five = [[1, 0], [2, 4], [3, 5], [10, 12], [-100, 1000]]
    assert next_model(Median(), [0, 0], five) == [2, 5]
    assert next_model(Median(), [0, 0], five[:4]) == [2.5, 4.5]  # (2 + 3) / 2, (4 + 5) / 2


def test_the_mean_of_five_without_the_smallest_and_the_largest():
    five = [[1, 0], [2, 4], [3, 5], [10, 12], [-100, 1000]]
    # 1, 2, 3 are left of the first; 4, 5, 12 of the second
    assert next_model(TrimmedMean(f=1), [0, 0], five) == [2, 7]


def test_krum_chooses_the_model_whose_two_nearest_neighbours_are_nearest():
    # n = 5, f = 1: two neighbours. Scores: 0: 1 + 9; 1: 1 + 4; 3: 4 + 9; 7: 16 + 36; 100: 8649 + 9409
    assert next_model(Krum(f=1), [0], [[0], [1], [3], [7], [100]]) == [1]


def test_multi_krum_averages_the_best():
    models = [[0], [1], [3], [7], [100]]
    assert next_model(MultiKrum(f=1, m=2), [0], models) == [0.5]  # 1 and 0
    assert next_model(MultiKrum(f=1), [0], models) == [2.75]  # n - f = 4: (0 + 1 + 3 + 7) / 4
    # by examples: (3 * 0 + 1 * 1) / 4
    assert next_model(MultiKrum(f=1, m=2, weighted=True), [0], models, [3, 1, 1, 1, 1]) == [0.25]


def test_bulyan_chooses_five_of_seven_and_averages_the_three_around_their_median():
    # n = 7, f = 1, theta = 5. Krum on all, four neighbours: 3 has 4 + 9 + 16 + 25 = 54, the lowest. Of the six that
    # are left, three neighbours: 7 has 1 + 9 + 36 = 46. Of five, two: 1 has 1 + 49 = 50. Of four, one: 8 and 10 have
    # 4, and the next neighbour of 8 is nearer. Of 0, 10, 100, one: 0 and 10 have 100, and 10 is nearer to 100. Chosen:
    # 1 3 7 8 10. Around 7: 7, 8 and 10.
    models = [[0], [1], [3], [7], [8], [10], [100]]
    assert next_model(Bulyan(f=1), [0], models) == [pytest.approx(25 / 3)]


def test_one_step_of_weiszfeld_weighs_by_the_inverse_of_the_distance():
    # From 0 to the points 1, 2 and 4: weights 1, 1/2, 1/4, which are 4/7, 2/7, 1/7
    points = np.array([[1.0], [2.0], [4.0]])
    shares = centres.geometric_median(points @ points.T, np.ones(3), iterations=1)
    assert shares == pytest.approx([4 / 7, 2 / 7, 1 / 7])


def test_the_geometric_median_of_three_on_a_line_and_of_a_square():
    assert next_model(RFA(), [0], [[0.5], [1], [100]]) == [pytest.approx(1)]
    corners = [[0, 0], [2, 0], [0, 2], [2, 2]]
    assert next_model(RFA(), [0, 1], corners) == [pytest.approx(1), pytest.approx(1)]
    # Twice the weight of both others together: the median is there
    assert next_model(RFA(weighted=True), [0], [[0.5], [1], [100]], [1, 1, 5]) == [pytest.approx(100)]


def test_updates_longer_than_the_bound_are_shortened_before_the_mean():
    # From (1, 1): (3, 4) has norm 5 and becomes (0.6, 0.8); (0, 1) stays
    models = [[4, 5], [1, 2]]
    assert next_model(NormClipping(bound=1), [1, 1], models) == pytest.approx([1.3, 1.9])
    # by examples 1 and 3: (0.6 / 4, (0.8 + 3) / 4)
    assert next_model(NormClipping(bound=1, weighted=True), [1, 1], models, [1, 3]) == pytest.approx([1.15, 1.95])
    # the median of 5, 1 and 2 is 2: (1.2, 1.6), (0, 1) and (2, 0)
    assert next_model(NormClipping(), [1, 1], [*models, [3, 1]]) == pytest.approx([1 + 3.2 / 3, 1 + 2.6 / 3])


def test_centered_clipping_pulls_from_the_update_of_the_round_before():
    strategy = CenteredClipping(bound=1)
    # The centre is 0: updates 0.5 and 3 pull by 0.5 and 1
    assert next_model(strategy, [0], [[0.5], [3]]) == [0.75]
    # The centre is 0.75: updates 0.5 and -10 pull by -0.25 and -1, so the update is 0.75 - 0.625
    assert next_model(strategy, [0.75], [[1.25], [-9.25]]) == [0.875]
    assert strategy.state()["w"].tolist() == [0.125]
    # A second iteration from 0.375 in the first round's numbers: 0 + (0.5 + 1) / 2 = 0.75, then (-0.25 + 1) / 2 more
    assert next_model(CenteredClipping(bound=1, iterations=2), [0], [[0.5], [3]]) == [1.125]
