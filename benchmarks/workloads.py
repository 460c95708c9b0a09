"""The workloads that simulations are compared on, as facts that every peer can be set up from.

All: SGD, softmax cross-entropy, pictures scaled to [0, 1], one optimizer step a batch, the last batch of an epoch as
short as it comes, clients' models averaged by their examples, the test set's accuracy after the last round.
"""

from dataclasses import dataclass
from pathlib import Path

from benchmarks import datasets

HERE = Path(__file__).parent
FILES = ("small_cnn", "many", "ragged")
TASKS = {"mlp": "fashion_mnist", "cnn": "mnist", **{name: str(HERE / f"{name}.py") for name in FILES}}


@dataclass(frozen=True)
class Workload:
    """A federation. model: mlp, small_cnn or cnn; partitioning: iid or dirichlet (alpha 0.3)."""

    name: str
    dataset: str
    model: str
    clients: int
    cohort: int
    rounds: int  # that are measured, after WARM ones
    epochs: int = 1
    batch: int = 32
    learning_rate: float = 0.1
    partitioning: str = "iid"
    warm: int = 3  # rounds left out: tracing, and memory that is used for the first time

    def settings(self) -> dict[str, object]:
        """Return our settings of it, beside those of the run store."""
        own = {} if TASKS[self.model] != self.dataset else {"model": self.model, "data_dir": str(self.folder())}
        return {
            "task": TASKS[self.model],
            "clients_per_round": self.cohort,
            "rounds": self.warm + self.rounds,
            "local_epochs": self.epochs,
            "batch_size": self.batch,
            "learning_rate": self.learning_rate,
            "partitioning": self.partitioning,
            "alpha": 0.3,
            "validation_fraction": 0,
            "fraction_evaluate": 0,
            **own,
        }

    def folder(self) -> Path:
        """Return the folder of the data's IDX files."""
        return datasets.folder(self.dataset)


FASHION = "fashion_mnist"
WORKLOADS = {
    each.name: each
    for each in (
        Workload("W1", FASHION, "mlp", clients=1000, cohort=100, rounds=100),
        Workload("W2", FASHION, "small_cnn", clients=1000, cohort=100, rounds=20),
        Workload("W3", "mnist", "cnn", clients=100, cohort=10, rounds=2, epochs=5, batch=10, warm=1),
        Workload("W4", FASHION, "mlp", clients=1000, cohort=100, rounds=100, partitioning="dirichlet"),
        # As W4, with sizes from 5 to 1,000: a Dirichlet split of a thousand clients ends at 230.
        Workload("W5", FASHION, "ragged", clients=1000, cohort=100, rounds=100),
        # Growth: ten times the population of one cohort; each client's 60 examples are drawn from Fashion-MNIST.
        Workload("G1", FASHION, "many", clients=1_000, cohort=1000, rounds=10),
        Workload("G10", FASHION, "many", clients=10_000, cohort=1000, rounds=10),
        Workload("G100", FASHION, "many", clients=100_000, cohort=1000, rounds=10),
    )
}
