"""A plan as the runners see it, and the lines that they print. Imported in every environment: needs NumPy alone."""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import numpy as np

STDOUT = sys.stdout


class Plan:
    """What a workload trains on: data, starting weights, and each round's clients with the order of their examples."""

    def __init__(self, path: str) -> None:
        self.path = path
        with np.load(path) as file:
            self._arrays = {name: file[name] for name in file.files}
        self.x_train, self.y_train = self._arrays["x_train"], self._arrays["y_train"]
        self.x_test, self.y_test = self._arrays["x_test"], self._arrays["y_test"]
        self.sizes, self.cohorts = self._arrays["sizes"], self._arrays["cohorts"]
        self.weights = [self._arrays[f"weight_{place}"] for place in range(sum("weight_" in n for n in self._arrays))]

    def scaled(self) -> tuple[Any, Any]:
        """Return the training data as float32 in [0, 1], and int32 labels: converted once, before anything is timed."""
        return self.x_train.astype(np.float32) / np.float32(255), self.y_train.astype(np.int32)

    def rows(self, number: int, place: int) -> Any:
        """Return the rows that the client at `place` of round `number` (from 0) steps through, all epochs in a row."""
        starts = self._arrays["starts"][number]
        return self._arrays["order"][starts[place] : starts[place + 1]]


def arguments() -> argparse.Namespace:
    """Parse a runner's command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("plan")
    parser.add_argument("--model", required=True, choices=("mlp", "small_cnn", "cnn"))
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="no round is begun after that")
    parser.add_argument("--variant", default="")
    return parser.parse_args()


class Report:
    """Prints a runner's rounds as lines of JSON, each as soon as the round is over."""

    def __init__(self, asked: argparse.Namespace, updates: int = 0) -> None:
        """updates: clients that train in a round, where they are not the plan's cohort."""
        self._other = {"updates": updates} if updates else {}
        self._began = time.perf_counter()
        self._asked = asked
        self.rounds = 0

    def go_on(self) -> bool:
        """Say whether another round may begin."""
        return self.rounds < self._asked.rounds and time.perf_counter() - self._began < self._asked.seconds

    def numbers(self) -> Iterator[int]:
        """Yield the numbers of the rounds to play, from 0, while there is time."""
        while self.go_on():
            yield self.rounds

    def round(self, seconds: float) -> None:
        """A round is over; it took `seconds` to train and aggregate."""
        self.rounds += 1
        self._print({"event": "round", "round": self.rounds, "seconds": seconds, **self._other})

    def end(self, accuracy: float, *packages: str) -> None:
        """All rounds are over. accuracy: of the last model, on the test set."""
        versions = {name: version(name) for name in packages}
        self._print({"event": "end", "accuracy": float(accuracy), "versions": versions})

    def _print(self, event: dict[str, Any]) -> None:
        print(json.dumps(event), file=STDOUT, flush=True)
