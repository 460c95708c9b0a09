"""W5's task: Fashion-MNIST over clients of 5 to 1,000 examples, many small and few large, each with classes of its own.

Sizes are the quantiles of a bounded Pareto distribution whose sum is the data set; a client's classes are drawn from
Dirichlet(0.3), without replacement.
"""

from functools import cache

import numpy as np

from benchmarks import datasets
from fl_common.data.examples import take
from fl_common.tasks.builtin import idx, models

SMALLEST, LARGEST, ALPHA = 5, 1000, 0.3


@cache
def data():
    return idx.load(datasets.fashion_mnist())


def build_model():
    return models.builder("mlp", (28, 28), 10, scale=1 / 255)()


def sizes(clients, total):
    """Return the sizes, smallest first; their sum is at most `total`."""
    levels = (np.arange(clients) + 0.5) / clients

    def quantiles(shape):
        span = 1 - (SMALLEST / LARGEST) ** shape
        return np.clip(np.round(SMALLEST * (1 - levels * span) ** (-1 / shape)), SMALLEST, LARGEST).astype(int)

    low, high = 0.01, 5.0  # a larger shape makes smaller clients
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if quantiles(middle).sum() > total else (low, middle)
    found = quantiles(high)
    found[[0, -1]] = SMALLEST, LARGEST
    return found


@cache
def parts(clients):
    rng = np.random.default_rng(0)
    labels = data()[0][1]
    left = [list(rng.permutation(np.flatnonzero(labels == label))) for label in range(10)]
    chosen = [[] for _ in range(clients)]
    wanted = sizes(clients, len(labels) - LARGEST)
    for client in rng.permutation(clients):
        shares = rng.dirichlet(np.full(10, ALPHA))
        for label in rng.choice(10, wanted[client], p=shares):
            pool = left[label] or max(left, key=len)
            chosen[client].append(pool.pop())
    return [np.sort(rows) for rows in chosen]


def load_partition(partition, partitions):
    return take(data()[0], parts(partitions)[partition]), None


def load_test():
    return data()[1]
