"""The environment variables of this project's processes: set where a command begins, before anything heavy is imported.

Flower, Keras and TensorFlow read them when they are imported. Child processes inherit them.
"""

import os

from fl_common.network.addresses import spare_own

SAFE_PATH = ("PYTHONSAFEPATH", "1")  # a new interpreter does not import a random.py of the folder that it starts in
DEFAULTS = {  # telemetry stays off
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_LOG_LEVEL": "WARNING",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    SAFE_PATH[0]: SAFE_PATH[1],
}
BACKEND, TENSORFLOW = "KERAS_BACKEND", "tensorflow"


def prepare() -> list[str]:
    """Set the variables of this process and its children. Return a sentence for each of a user's that is overruled."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    spare_own()
    wanted = os.environ.get(BACKEND, TENSORFLOW)
    os.environ[BACKEND] = TENSORFLOW
    return [] if wanted == TENSORFLOW else [f"{BACKEND}={wanted} is not used: Parterre's models run on TensorFlow."]
