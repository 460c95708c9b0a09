"""FedProx: FedAvg whose clients stay near the model they were sent. The term itself is in the client's training."""

from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid

from fl_common.errors import StrategyError
from strategies.fedavg import FedAvg


class FedProx(FedAvg):
    """Adds mu / 2 * ||w - w_round||^2 to each client's loss: Li et al. 2020 (arXiv:1812.06127), equation 2."""

    def __init__(self, *, mu: float = 0.1, **fedavg: Any) -> None:
        super().__init__(**fedavg)
        if not mu >= 0:
            raise StrategyError(f"mu must be at least 0; got {mu}. Set it with --set mu=0.1")
        self.mu = mu

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Return FedAvg's messages with "proximal-mu" in the configuration."""
        config["proximal-mu"] = float(self.mu)
        return super().configure_train(server_round, arrays, config, grid)
