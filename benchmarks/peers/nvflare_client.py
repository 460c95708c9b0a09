"""What a client of NVFlare's simulator runs: the Client API, as in its TensorFlow examples. See nvflare_runner.py."""

import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import nvflare.client as flare

sys.path.insert(0, os.environ["PEERS_FOLDER"])

import keras_models
from plan import Plan


def main() -> None:
    asked = json.loads(os.environ["PEERS_ASKED"])
    plan = Plan(asked["plan"])
    x, y = plan.scaled()
    model = keras_models.build(keras, asked["model"])
    model.compile(keras.optimizers.SGD(asked["learning_rate"]), "sparse_categorical_crossentropy")
    flare.init()
    place = int(flare.get_site_name().removeprefix("site-")) - 1
    while flare.is_running():
        message = flare.receive()
        number = message.current_round
        for name, values in message.params.items():
            model.get_layer(name).set_weights(values)
        if place == 0:
            note(number, model)
        rows = plan.rows(number, place)
        model.fit(x[rows], y[rows], batch_size=asked["batch_size"], epochs=1, shuffle=False, verbose=0)
        flare.send(
            flare.FLModel(
                params={layer.name: layer.get_weights() for layer in model.layers},
                meta={"NUM_STEPS_CURRENT_ROUND": len(rows)},
            )
        )


def note(number: int, model: keras.Model) -> None:
    """Tell the runner that a round begins, and with which weights."""
    folder = Path(os.environ["PEERS_NOTES"])
    np.savez(folder / "weights.npz", *model.get_weights())
    with (folder / "rounds").open("a") as file:
        file.write(f"{number} {time.time()}\n")


if __name__ == "__main__":
    main()
