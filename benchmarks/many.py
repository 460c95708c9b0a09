"""The task of the growth runs: any number of clients, each with 60 examples of Fashion-MNIST drawn for it."""

from functools import cache

import numpy as np

from benchmarks import datasets
from fl_common.data.examples import take
from fl_common.tasks.builtin import idx, models

EXAMPLES = 60


@cache
def data():
    return idx.load(datasets.fashion_mnist())


def build_model():
    return models.builder("mlp", (28, 28), 10, scale=1 / 255)()


def load_partition(partition, partitions):
    rows = np.random.default_rng(partition).integers(0, len(data()[0][1]), EXAMPLES)
    return take(data()[0], rows), None


def load_test():
    return data()[1]
