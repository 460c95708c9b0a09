"""Texts as they are: TextVectorization, adapted to words that everybody knows, is a layer of the model."""

import keras
import numpy as np

GOOD, BAD = ["lovely", "fine", "warm"], ["awful", "dull", "cold"]


def build_model():
    words = keras.layers.TextVectorization(max_tokens=50, output_sequence_length=6)
    words.adapt([f"the film was {word}" for word in (*GOOD, *BAD)])
    layers = [words, keras.layers.Embedding(50, 4), keras.layers.GlobalAveragePooling1D()]
    model = keras.Sequential([keras.Input((1,), dtype="string"), *layers, keras.layers.Dense(1, "sigmoid")])
    model.compile(keras.optimizers.Adam(0.05), "binary_crossentropy", metrics=["accuracy"])
    return model


def load_partition(partition, partitions):
    rng = np.random.default_rng(partition)
    y = rng.integers(0, 2, 30)
    x = np.array([f"The film was {rng.choice(GOOD if label else BAD)}!" for label in y])
    return (x[10:], y[10:]), (x[:10], y[:10])
