"""tf.data datasets of sequences, endless ones and ragged ones; models that fix the number of examples in a step."""

import logging
import warnings

import numpy as np
import pytest
from psutil import virtual_memory

from fl_common.data import tf_datasets
from fl_common.data.class_weights import parsed, weighted
from fl_common.data.examples import normalised
from fl_common.errors import DataError, TaskError
from fl_common.models.frameworks import keras, tf
from fl_common.settings.schema import Settings
from fl_common.tasks.task import Task, build, resolve

LENGTHS = (2, 5, 3, 1, 4)


def sequences(dtype=tf.int32):
    def rows():
        for length in LENGTHS:
            yield np.full(length, length, dtype.as_numpy_dtype), length

    signature = (tf.TensorSpec((None,), dtype), tf.TensorSpec((), tf.int32))
    return tf.data.Dataset.from_generator(rows, output_signature=signature)


def filled(filler=0):
    return [[length] * length + [filler] * (5 - length) for length in LENGTHS]


def test_batches_of_unlike_widths_are_filled_up_with_zeros():
    x, y = normalised(sequences().padded_batch(2).prefetch(1), "d")
    assert x.tolist() == filled()
    assert x.dtype == np.int32
    assert y.tolist() == list(LENGTHS)


def test_they_are_filled_up_as_the_dataset_fills_them_itself():
    assert normalised(sequences().padded_batch(2, padding_values=(-1, 0)).take(9), "d")[0].tolist() == filled(-1)


def test_buckets_by_length_are_read():
    buckets = sequences().bucket_by_sequence_length(lambda x, y: tf.size(x), [3], [2, 2])
    x, y = normalised(buckets, "d")
    assert sorted(map(tuple, x.tolist())) == sorted(map(tuple, filled()))
    assert sorted(y) == sorted(LENGTHS)


def test_strings_are_filled_up_with_empty_ones():
    words = tf.data.Dataset.from_generator(
        lambda: (([b"a"] * n, n) for n in LENGTHS),
        output_signature=(tf.TensorSpec((None,), tf.string), tf.TensorSpec((), tf.int32)),
    )
    x, _ = normalised(words.padded_batch(2), "d")
    assert x.tolist() == [[b"a"] * length + [b""] * (5 - length) for length in LENGTHS]


ragged = tf.ragged.constant([[1, 2], [3]])
REFUSED = {
    "elements of unlike lengths": (sequences, r"cannot be read.*padded_batch"),
    "a ragged dataset": (
        lambda: tf.data.Dataset.from_tensor_slices((ragged, [0, 1])).batch(2),
        r"ragged or sparse.*to_tensor",
    ),
    "a ragged tensor": (lambda: (ragged, np.zeros(2)), r"RaggedTensor, but needs .*to_tensor"),
    "an endless one": (lambda: sequences().padded_batch(2).repeat(), "endless"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_array_is_told_with_what_to_do(case):
    make, words = REFUSED[case]
    with pytest.raises(DataError, match=words):
        normalised(make(), "d")


def test_a_dataset_that_does_not_know_that_it_is_endless_ends_with_the_memory(monkeypatch, caplog):
    def forever():
        while True:
            yield np.zeros((1000, 125)), np.zeros(1000)

    endless = tf.data.Dataset.from_generator(
        forever, output_signature=(tf.TensorSpec((None, 125), tf.float64), tf.TensorSpec((None,), tf.float64))
    )
    monkeypatch.setattr(
        tf_datasets, "SHARE", virtual_memory().available / 20e6
    )  # 20 MB instead of half of what is free
    monkeypatch.setattr(tf_datasets, "PATIENCE_SECONDS", 0.0)
    with caplog.at_level(logging.WARNING), pytest.raises(DataError, match=r"gave \d+ examples .*\.take\(n\)"):
        normalised(endless, "d")
    assert "is the dataset endless?" in caplog.text


def test_a_model_of_fixed_batches_or_with_state_is_refused_before_it_trains():
    def fixed():
        model = keras.Sequential([keras.Input(batch_shape=(32, 4)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        return model

    def stateful():
        model = keras.Sequential([keras.layers.LSTM(3, stateful=True), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        return model

    with pytest.raises(TaskError, match=r"exactly 32 examples.*Give its input shape"):
        build(Task("fixed", fixed, lambda *_: None), 0)
    with pytest.raises(TaskError, match=r"layer lstm of task stateful is stateful.*Leave stateful=True out"):
        build(Task("stateful", stateful, lambda *_: None), 0)


def test_a_model_without_weights_is_refused_at_the_start():
    def weightless():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Softmax()])
        model.compile("sgd", "sparse_categorical_crossentropy")
        return model

    data = (np.zeros((2, 4), "float32"), np.zeros(2, "int64"))
    with pytest.raises(TaskError, match=r"task weightless has no weights.*Give it a layer that has some"):
        build(Task("weightless", weightless, lambda *_: (data, data)), 0)


def test_a_subclass_whose_inherited_build_made_no_weights_is_called_on_data():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(3)

        def call(self, x):
            return self.dense(x)

    def own():
        model = Own()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras's, that build() does nothing here
            model.build((None, 4))
        model.compile("sgd", "mse")
        return model

    data = (np.zeros((2, 4), "float32"), np.zeros((2, 3), "float32"))
    assert len(build(Task("own", own, lambda *_: (data, data)), 0).weights) == 2


WEIGHTED = """
def build_model(): ...
def load_partition(partition, partitions):
    import numpy as np
    return (np.zeros((4, 2)), np.array([0, 1, 1, 2])), (np.zeros((2, 2)), np.array([0, 1]))
def class_weight():
    return {0: 3, 2: 0.5}
"""


def test_class_weights_become_weights_of_the_training_part(tmp_path):
    (tmp_path / "weighted_task.py").write_text(WEIGHTED)
    train, validation = resolve(Settings(task=str(tmp_path / "weighted_task.py"))).load_partition(0, 1)
    assert train[2].tolist() == [3, 1, 1, 0.5]
    assert len(validation) == 2


def test_class_weights_multiply_sample_weights_and_know_one_hot_rows():
    x, y = np.zeros((3, 2)), np.eye(3)[[2, 0, 1]]
    assert weighted((x, y, np.array([1.0, 2.0, 4.0])), {0: 3.0, 1: 0.5}, "d")[2].tolist() == [1, 6, 2]
    with pytest.raises(DataError, match=r"one array of class numbers or of one-hot rows.*sample weights"):
        weighted((x, {"a": y}), {0: 1.0}, "d")


@pytest.mark.parametrize("value", ["balanced", {"a": 1}, {0: -1}, {0: float("nan")}, [1, 2]])
def test_class_weights_of_another_form_are_refused(value):
    with pytest.raises(TaskError, match=r"class_weight\(\) of task t must return a weight from 0 up for each class"):
        parsed(value, "t")
