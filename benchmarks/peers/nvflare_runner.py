"""NVFlare's simulator: its FedAvgRecipe for TensorFlow in a SimEnv, with CLIENTS clients, all of whom train in a round.

It cannot hold a thousand clients here: a client that stays is a process with TensorFlow in it. Variants: "" is a thread
a core, where a process is started for each client and round; "resident" a thread a client, where the processes stay.
A round lasts from the first client's receiving a model to its receiving the next one.
"""

import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import keras_models
import numpy as np
from nvflare.app_opt.tf.recipes.fedavg import FedAvgRecipe
from nvflare.recipe.sim_env import SimEnv
from plan import Plan, Report, arguments

CLIENTS = 10


def main() -> None:
    asked = arguments()
    plan = Plan(asked.plan)
    rounds = min(asked.rounds, 6)
    report = Report(asked, updates=CLIENTS)
    with tempfile.TemporaryDirectory() as folder:
        net = keras_models.build(keras, asked.model, plan.weights)
        net.save(f"{folder}/initial.keras")
        os.environ["PEERS_FOLDER"] = str(Path(__file__).parent)
        os.environ["PEERS_NOTES"] = folder
        os.environ["PEERS_ASKED"] = json.dumps(vars(asked))
        recipe = FedAvgRecipe(
            name="peers",
            initial_ckpt=f"{folder}/initial.keras",
            min_clients=CLIENTS,
            num_rounds=rounds + 1,
            train_script=str(Path(__file__).parent / "nvflare_client.py"),
        )
        threads = CLIENTS if asked.variant == "resident" else len(os.sched_getaffinity(0))
        environment = SimEnv(num_clients=CLIENTS, num_threads=threads, workspace_root=f"{folder}/workspace")
        threading.Thread(target=follow, args=(Path(folder), report, rounds, net, plan), daemon=True).start()
        with contextlib.redirect_stdout(sys.stderr):
            recipe.execute(environment)


def follow(folder: Path, report: Report, rounds: int, net: keras.Model, plan: Plan) -> None:
    """Report each round as soon as the next one begins; after the last, evaluate and leave."""
    told: list[float] = []
    while True:
        time.sleep(0.02)
        path = folder / "rounds"
        lines = path.read_text().splitlines() if path.exists() else []
        for line in lines[len(told) :]:
            told.append(float(line.split()[1]))
            if len(told) > 1:
                report.round(told[-1] - told[-2])
        if len(told) > rounds or (len(told) > 1 and not report.go_on()):
            with np.load(folder / "weights.npz") as weights:
                net.set_weights([weights[name] for name in weights.files])
            found = net.predict(plan.x_test.astype(np.float32) / 255, batch_size=1000, verbose=0).argmax(1)
            report.end((found == plan.y_test).mean(), "nvflare", "tensorflow-cpu", "keras", "numpy")
            return


if __name__ == "__main__":
    main()
