"""What each strategy makes of each attack: accuracy on Fashion-MNIST's test set after 30 rounds, in one process.

100 clients of 600 examples, 30 of them a round, drawn anew; Dense 10 relu, Dense 10 softmax; 1 local epoch, batch 32,
SGD 0.1. Each strategy has one setting for all attacks, as one who does not know which comes. Means over N seeds, 0 to
N - 1 (1); a cell, which is 30 rounds, takes two to four seconds of one core.
`python benchmarks/attacks.py [--seeds N]` writes benchmarks/results/attacks.json and the tables of
docs/explanation/robustness.md. Accuracies do not depend on the machine's speed, so it may run beside other work. Needs
Debian's package dataset-fashion-mnist.
"""

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks import datasets
from benchmarks.machine import facts
from fl_common.messages.arrays import Arrays
from fl_common.settings.schema import Settings, parse
from fl_simulation.engine.onednn import TensorFlow

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "attacks.json"
PAGE = HERE.parent / "docs" / "explanation" / "robustness.md"
START, END = "<!-- attacks:start -->\n", "<!-- attacks:end -->\n"

CLIENTS, COHORT, ROUNDS = 100, 30, 30
STRATEGIES: dict[str, dict[str, Any]] = {
    "fedavg": {},
    "median": {},
    "trimmedmean": {"f": 12},
    "krum": {"f": 12},
    "multikrum": {"f": 12},
    "bulyan": {"f": 6},
    "rfa": {},
    "normclipping": {},
    "centeredclipping": {},
}
ATTACKS: dict[str, tuple[str, float]] = {
    "label flip": ("label_flip", 0),
    "sign flip": ("sign_flip", 4),
    "scaled update": ("scale", 30),
    "Gaussian noise": ("gaussian", 1),
    "a little is enough": ("alie", 1.5),
}
SHARES = (0.1, 0.2, 0.3)
SPLITS: dict[str, tuple[dict[str, Any], tuple[float, ...]]] = {
    "iid": ({}, SHARES),
    "dirichlet": ({"partitioning": "dirichlet", "alpha": 0.5}, (0.2,)),
}
Cell = tuple[str, float]  # attack, share of hostile clients; "none", 0
Pairs = tuple[tuple[str, Any], ...]


class Federation:
    """The clients of one seed and split, honest data or flipped: an engine that is traced once, for many cells."""

    def __init__(self, seed: int, split: dict[str, Any], hostile: dict[str, Any]) -> None:
        from fl_simulation.engine.engine import BatchedEngine

        self.settings = parse(
            {
                "task": "fashion_mnist",
                "model": "mlp",
                "data_dir": str(datasets.folder("fashion_mnist")),
                "partitions": CLIENTS,
                "min_clients": CLIENTS,
                "clients_per_round": COHORT,
                "rounds": ROUNDS,
                "validation_fraction": 0,
                "fraction_evaluate": 0,
                "seed": seed,
                "strategy": "median",  # any that needs each client's reply
                **split,
                **hostile,
            }
        )
        self.engine = BatchedEngine(self.settings)
        self._test = self.engine.test()

    def accuracy(self, settings: Settings) -> float:
        """Return the accuracy of the model after all rounds under the attack that the settings name."""
        from fl_common.models.weights import non_trainable_names
        from fl_server.rounds.loop import Rounds
        from fl_server.rounds.state import State
        from fl_server.store.runs import Run
        from fl_simulation.attacks.hostile_clients import with_hostile
        from fl_simulation.grid import SimulatedGrid
        from strategies import make

        model = self.engine.trainer.model
        made: Any = make(settings)
        made.non_trainable = non_trainable_names(model)
        engine = with_hostile(self.engine, settings, CLIENTS, lambda event: None)
        with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
            run = Run.create(Path(folder) / "run", settings)
            state, _ = Rounds(SimulatedGrid(CLIENTS, engine), made, settings, run).run(State(self._start()))
        return round(float(self._test(state.arrays)["accuracy"]), 4) if self._test else 0.0

    def _start(self) -> Arrays:
        from fl_common.models.weights import weights_of
        from fl_common.tasks.task import build

        return weights_of(build(self.engine.task, self.settings.seed))


def cells(shares: tuple[float, ...]) -> Iterator[Cell]:
    """Yield every attack and share."""
    yield "none", 0.0
    for attack in ATTACKS:
        for share in shares:
            yield attack, share


def hostile(cell: Cell) -> dict[str, Any]:
    """Return the settings of an attack."""
    attack, share = cell
    if not share:
        return {}
    name, scale = ATTACKS[attack]
    return {"hostile": share, "attack": name, "attack_scale": scale}


class Known:
    """Accuracies by split, strategy, cell and seed, in a file as they come: what broke off is gone on with."""

    def __init__(self, path: Path) -> None:
        self.measured = 0
        self._path = path
        self._found: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}

    def get(self, name: str, measure: Callable[[], float]) -> float:
        """Return what is known under a name, or measure it."""
        if name not in self._found:
            self._found[name] = measure()
            self.measured += 1
            self._path.write_text(json.dumps(self._found))
        return self._found[name]

    def forget(self) -> None:
        """Forget all: the next run measures again."""
        self._path.unlink(missing_ok=True)


def measured(split: str, seeds: int, known: Known) -> dict[str, dict[str, list[float]]]:
    """Return strategy -> cell -> one accuracy for each seed."""
    changes, shares = SPLITS[split]
    found: dict[str, dict[str, list[float]]] = {name: {} for name in STRATEGIES}
    for seed in range(seeds):
        for cell in cells(shares):
            data = hostile(cell) if cell[0] == "label flip" else {}  # what is wrong is in the data
            for strategy in STRATEGIES:
                accuracy = known.get(
                    f"{split} {strategy} {key_of(cell)} {seed}",
                    partial(_accuracy, seed, tuple(changes.items()), tuple(data.items()), cell, strategy),
                )
                found[strategy].setdefault(key_of(cell), []).append(accuracy)
            print(split, seed, cell, {name: row[key_of(cell)][-1] for name, row in found.items()}, flush=True)
    return found


def _accuracy(seed: int, changes: Pairs, data: Pairs, cell: Cell, strategy: str) -> float:
    federation = _federation(seed, changes, data)
    named = {f"strategy.{key}": value for key, value in STRATEGIES[strategy].items()}
    return federation.accuracy(
        parse({**federation.settings.model_dump(), **hostile(cell), "strategy": strategy, **named})
    )


@lru_cache(maxsize=2)  # that of honest data, and one of flipped labels
def _federation(seed: int, changes: Pairs, data: Pairs) -> Federation:
    return Federation(seed, dict(changes), dict(data))


def key_of(cell: Cell) -> str:
    """Return a cell's name in the result."""
    attack, share = cell
    return f"{attack} {share:.0%}" if share else attack


def tables(result: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    seeds = result["seeds"]
    parts = [f"{'One seed' if seeds == 1 else f'Means over {seeds} seeds'}; {result['date'][:10]}.\n"]
    for split, title in (("iid", "Examples dealt at random"), ("dirichlet", "Examples dealt unevenly, Dirichlet(0.5)")):
        if split not in result["accuracy"]:
            continue
        _, shares = SPLITS[split]
        heads = ["none", *(f"{attack} {' / '.join(f'{share:.0%}' for share in shares)}" for attack in ATTACKS)]
        lines = [f"| {' | '.join(['strategy', *heads])} |", f"|---|{'---|' * len(heads)}"]
        for name, row in result["accuracy"][split].items():
            groups = [["none"], *([key_of((attack, share)) for share in shares] for attack in ATTACKS)]
            shown = [" / ".join(f"{100 * sum(row[key]) / len(row[key]):.0f}" for key in keys) for keys in groups]
            lines.append(f"| `{name}` | {' | '.join(shown)} |")
        parts.append(f"{title}:\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def page(text: str, result: dict[str, Any]) -> str:
    """Return the page's text with the tables between their markers."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return before + START + tables(result) + END + after


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", choices=SPLITS, action="append", help="measure one split; the other stays")
    parser.add_argument("--page", action="store_true", help="write the page from the results; measures nothing")
    given = parser.parse_args()
    if given.page:
        PAGE.write_text(page(PAGE.read_text(), json.loads(RESULT.read_text())))
        return
    sys.path[:] = [each for each in sys.path if Path(each).resolve() != HERE]  # its datasets.py hides a package
    logging.getLogger("flwr").setLevel(logging.ERROR)
    settings = parse({"partitions": CLIENTS, "clients_per_round": COHORT, "min_clients": CLIENTS})
    TensorFlow.imported().share_cores(settings)
    used = time.process_time()
    known = Known(RESULT.with_suffix(".partial.json"))
    earlier = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    before = earlier.get("accuracy", {}) if given.only else {}
    accuracy = {split: measured(split, given.seeds, known) for split in given.only or SPLITS}
    used = time.process_time() - used
    result = {
        **facts(),
        "how": __doc__,
        "clients": CLIENTS,
        "cohort": COHORT,
        "rounds": ROUNDS,
        "seeds": given.seeds,
        "arguments": STRATEGIES,
        "attacks": {attack: {"attack": name, "scale": scale} for attack, (name, scale) in ATTACKS.items()},
        "cpu_seconds_a_cell": round(used / known.measured, 2) if known.measured else earlier.get("cpu_seconds_a_cell"),
        "accuracy": before | accuracy,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    PAGE.write_text(page(PAGE.read_text(), result))
    if not given.only:
        known.forget()


if __name__ == "__main__":
    main()
