"""A task of your own: 178 wines, 13 measurements, 3 growers. Try it: fl up --task examples/my_task.py --clients 3"""

import keras
import numpy as np
from sklearn.datasets import load_wine

from fl_common.data.partitions import partition_indices

x, y = load_wine(return_X_y=True)
x = (x - x.mean(axis=0)) / x.std(axis=0)
test = np.arange(len(x)) % 5 == 0  # every fifth wine is held out
train_x, train_y = x[~test], y[~test]


def build_model():
    model = keras.Sequential([keras.Input((13,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def load_partition(partition, partitions, settings):  # settings are passed to a function that names them
    mine = partition_indices(train_y, partition, partitions, settings)
    held = len(mine) // 5
    return (train_x[mine[held:]], train_y[mine[held:]]), (train_x[mine[:held]], train_y[mine[:held]])


def load_test():
    return x[test], y[test]
