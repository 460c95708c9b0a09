"""pfl-research with PyTorch: FederatedAveraging on a SimulatedBackend.

One process with a thread a core; or, under torchrun, which is how it uses several workers, one process a core.
"""

import time
from typing import Any

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.hyperparam.base import NNEvalHyperParams, NNTrainHyperParams
from pfl.internal.ops import pytorch_ops
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel
from plan import Plan, Report, arguments
from torch import nn


class Net(nn.Module):
    """A model with pfl-research's `loss` and `metrics`."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Any) -> Any:
        return self.layers(x)

    def loss(self, x: Any, y: Any) -> Any:
        self.train()
        return nn.functional.cross_entropy(self(x), y)

    def metrics(self, x: Any, y: Any) -> dict[str, Any]:
        return {}


def layers(name: str) -> list[nn.Module]:
    if name == "mlp":
        return [nn.Flatten(), nn.Linear(784, 10), nn.ReLU(), nn.Linear(10, 10)]
    size, padding, filters = (5, 2, (32, 64)) if name == "cnn" else (3, 0, (16, 32))
    blocks: list[nn.Module] = []
    for before, after in zip((1, *filters), filters, strict=False):
        blocks += [nn.Conv2d(before, after, size, padding=padding), nn.ReLU(), nn.MaxPool2d(2)]
    if name == "cnn":
        return [*blocks, nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 10)]
    return [*blocks, nn.Flatten(), nn.Linear(800, 10)]


def fill(model: Net, weights: list[Any], name: str) -> None:
    """Give the model the plan's weights: Keras has channels last."""
    first_dense = {"small_cnn": (5, 5, 32), "cnn": (7, 7, 64)}.get(name)
    for parameter, value in zip(model.parameters(), weights, strict=True):
        if value.ndim == 4:
            value = value.transpose(3, 2, 0, 1)
        elif value.ndim == 2:
            if first_dense is not None:
                value = value.reshape(*first_dense, -1).transpose(2, 0, 1, 3).reshape(value.shape)
                first_dense = None
            value = value.T
        parameter.data.copy_(torch.from_numpy(np.ascontiguousarray(value)))


class Watch(TrainingProcessCallback):
    """Reports each round, and stops when time is up."""

    def __init__(self, report: Report, main: bool) -> None:
        self._report, self._main, self._last = report, main, time.perf_counter()

    def on_train_begin(self, *, model: Any) -> Metrics:
        self._last = time.perf_counter()
        return Metrics()

    def after_central_iteration(
        self, aggregate_metrics: Any, model: Any, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        now = time.perf_counter()
        if self._main:
            self._report.round(now - self._last)
        else:
            self._report.rounds += 1
        stop = torch.tensor([0.0 if self._report.go_on() else 1.0])
        if pytorch_ops.distributed.world_size > 1:
            torch.distributed.all_reduce(stop)
        self._last = time.perf_counter()
        return bool(stop.item()), Metrics()


def main() -> None:
    asked = arguments()
    plan = Plan(asked.plan)
    main_process = pytorch_ops.distributed.global_rank == 0
    x, y = (torch.from_numpy(each) for each in plan.scaled())
    x, y = x.reshape(-1, 1, 28, 28), y.long()
    net = Net(layers(asked.model))
    fill(net, plan.weights, asked.model)
    model = PyTorchModel(net, torch.optim.SGD, torch.optim.SGD(net.parameters(), lr=1.0))
    turns = iter((number, place) for number, cohort in enumerate(plan.cohorts) for place in range(len(cohort)))

    def dataset_of(turn: tuple[int, int]) -> Dataset:
        rows = torch.from_numpy(plan.rows(*turn))
        return Dataset((x[rows], y[rows]), user_id=str(turn))

    backend = SimulatedBackend(FederatedDataset(dataset_of, lambda: next(turns)), None, [WeightByDatapoints()])
    report = Report(asked)
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=asked.rounds,
            evaluation_frequency=asked.rounds + 1,
            train_cohort_size=plan.cohorts.shape[1],
            val_cohort_size=0,
        ),
        backend,
        model,
        NNTrainHyperParams(
            local_batch_size=asked.batch_size, local_num_epochs=1, local_learning_rate=asked.learning_rate
        ),
        NNEvalHyperParams(local_batch_size=None),
        [Watch(report, main_process)],
        send_metrics_to_platform=False,
    )
    if main_process:
        with torch.no_grad():
            pictures = torch.from_numpy(plan.x_test.astype(np.float32) / 255).reshape(-1, 1, 28, 28)
            found = torch.cat([net(part).argmax(1) for part in pictures.split(1000)]).numpy()
        report.end((found == plan.y_test).mean(), "pfl", "torch", "numpy")


if __name__ == "__main__":
    main()
