"""A folder of pictures for each client, a sub-folder for each class, augmented by layers of the model."""

import tempfile
from pathlib import Path

import keras
import numpy as np

SIZE = 12


def build_model():
    layers = [
        keras.layers.RandomFlip("horizontal"),
        keras.layers.RandomRotation(0.1),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Conv2D(4, 3, activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
        keras.layers.Dropout(0.2),
        keras.layers.Dense(2, "softmax"),
    ]
    model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), *layers])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def load_partition(partition, partitions):
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder), np.random.default_rng(partition))
        read = keras.utils.image_dataset_from_directory
        found = read(
            folder, image_size=(SIZE, SIZE), batch_size=8, seed=1, validation_split=0.25, subset="both", verbose=False
        )
        return tuple(part.cache() for part in map(held, found))


def held(dataset):
    """Return a dataset that no longer needs its folder."""
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(
        tuple(np.concatenate(parts) for parts in zip(*dataset.as_numpy_iterator(), strict=True))
    )


def draw(folder, rng):
    for name, light in (("dark", 60), ("light", 180)):
        (folder / name).mkdir()
        for number in range(12):
            pixels = rng.integers(light - 40, light + 40, (SIZE, SIZE, 3)).astype("uint8")
            keras.utils.save_img(folder / name / f"{number}.png", pixels, scale=False)
