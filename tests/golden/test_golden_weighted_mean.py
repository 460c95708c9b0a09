"""FedAvg's mean, with numbers worked out by hand."""

import numpy as np

from strategies.rules.weighted_mean import WeightedMean


def test_three_clients_of_1_2_and_5_examples():
    # (1 * 8 + 2 * 4 + 5 * 0) / 8 = 2;  (1 * -8 + 2 * 16 + 5 * 8) / 8 = 8
    model = {"w": np.zeros(2, np.float32)}
    fold = WeightedMean(model)
    for weight, values in ((1, [8, -8]), (2, [4, 16]), (5, [0, 8])):
        fold.fold({"w": np.array(values, np.float32)}, weight)
    assert fold.result(model)["w"].tolist() == [2.0, 8.0]
