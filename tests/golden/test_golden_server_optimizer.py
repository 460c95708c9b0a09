"""Server optimizers: two rounds each, with the numbers worked out by hand from the papers' formulas.

The model is one number x = 1; the clients' mean lies d above it in each round: d = 0.1, then d = 0.2.
"""

import numpy as np
import pytest

from strategies.server_optimizer import FedAdagrad, FedAdam, FedAvgM, FedOpt, FedYogi


def two_rounds(strategy: FedOpt) -> list[float]:
    x, seen = np.array([1.0], np.float32), []
    for d in (0.1, 0.2):
        x = strategy.step({"x": x}, {"x": x + np.float32(d)})["x"]
        seen.append(float(x[0]))
    assert x.dtype == np.float32
    return seen


def test_fedavgm():
    # v1 = 0.1,                     x1 = 1 + 0.5 * 0.1   = 1.05
    # v2 = 0.9 * 0.1 + 0.2 = 0.29,  x2 = 1.05 + 0.5 * 0.29 = 1.195
    assert two_rounds(FedAvgM(learning_rate=0.5, momentum=0.9)) == pytest.approx([1.05, 1.195], abs=1e-6)


def test_fedavgm_without_momentum_is_fedavg():
    assert two_rounds(FedAvgM(learning_rate=1.0, momentum=0.0)) == pytest.approx([1.1, 1.3], abs=1e-6)


def test_fedadam():
    # tau = 0.1, v0 = 0.01, b1 = 0.5, b2 = 0.75, rate 0.4
    # m1 = 0.05,                     v1 = 0.75 * 0.01 + 0.25 * 0.01 = 0.01
    # x1 = 1 + 0.4 * 0.05 / (0.1 + 0.1) = 1.1
    # m2 = 0.025 + 0.1 = 0.125,      v2 = 0.0075 + 0.25 * 0.04 = 0.0175, root 0.1322876
    # x2 = 1.1 + 0.4 * 0.125 / 0.2322876 = 1.1 + 0.2152504 = 1.3152504
    strategy = FedAdam(learning_rate=0.4, beta_1=0.5, beta_2=0.75, tau=0.1)
    assert two_rounds(strategy) == pytest.approx([1.1, 1.3152504], abs=1e-6)


def test_fedyogi():
    # as above, but v = v - (1 - b2) d^2 sign(v - d^2), with tau = 0.2, v0 = 0.04
    # v1 = 0.04 - 0.25 * 0.01 * (+1) = 0.0375, root 0.1936492; x1 = 1 + 0.4 * 0.05 / 0.3936492 = 1.0508066
    # v2 = 0.0375 - 0.25 * 0.04 * (-1) = 0.0475, root 0.2179449; x2 = x1 + 0.4 * 0.125 / 0.4179449 = 1.1704397
    strategy = FedYogi(learning_rate=0.4, beta_1=0.5, beta_2=0.75, tau=0.2)
    assert two_rounds(strategy) == pytest.approx([1.0508066, 1.1704397], abs=1e-6)


def test_fedadagrad():
    # tau = 0.1, v0 = 0.01, b1 = 0 (m = d), rate 0.4
    # v1 = 0.01 + 0.01 = 0.02, root 0.1414214; x1 = 1 + 0.4 * 0.1 / 0.2414214 = 1.1656854
    # v2 = 0.02 + 0.04 = 0.06, root 0.2449490; x2 = x1 + 0.4 * 0.2 / 0.3449490 = 1.3976044
    strategy = FedAdagrad(learning_rate=0.4, tau=0.1)
    assert two_rounds(strategy) == pytest.approx([1.1656854, 1.3976044], abs=1e-6)
