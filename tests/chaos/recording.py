"""FedAvg that notes which updates each round is made of; the runs of the chaos tests are run with it."""

from collections.abc import Iterable, Iterator

from flwr.app import ArrayRecord, Message, MetricRecord

from strategies.fedavg import FedAvg
from tests.chaos.ledger import Ledger, digest


class Recorded(FedAvg):
    """Aggregates as FedAvg does."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        names: list[str] = []

        def noted() -> Iterator[Message]:
            for message in replies:
                arrays = message.content["arrays"]
                names.append(digest({name: array.numpy() for name, array in arrays.items()}))
                yield message

        result = super().aggregate_train(server_round, noted())
        Ledger.here().accepted(server_round, names)
        return result
