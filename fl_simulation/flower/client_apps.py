"""Clients that are any ordinary Flower ClientApp, called one after the other: the slow way, for a user's own app."""

from collections.abc import Iterator, Mapping, Sequence

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fl_common.settings.schema import Scalar
from fl_simulation.grid import failure


class ClientAppEngine:
    """Each node has a Context of its own, whose state lasts from message to message; it is made when first asked.

    `run_config` is what Flower's `--run-config` holds. Nodes find "partition-id" and "num-partitions" in their node
    config, as Flower's own simulation gives them.
    """

    def __init__(self, app: ClientApp, population: int, run_config: Mapping[str, Scalar] | None = None) -> None:
        self._app = app
        self._population = population
        self._run_config = dict(run_config or {})
        self._contexts: dict[int, Context] = {}

    def answer(self, messages: Sequence[Message]) -> Iterator[Message]:
        """Yield the app's replies; an exception in it is an error reply."""
        for message in messages:
            yield self._reply(message)

    def _reply(self, message: Message) -> Message:
        try:
            return self._app(message, self._context(message.metadata.dst_node_id))
        except Exception as error:  # noqa: BLE001  a user's code may raise anything; it costs that client alone
            return failure(message, error)

    def _context(self, node: int) -> Context:
        if node not in self._contexts:
            self._contexts[node] = Context(
                run_id=1,
                node_id=node,
                node_config={"partition-id": node - 1, "num-partitions": self._population},
                state=RecordDict(),
                run_config=self._run_config,
            )
        return self._contexts[node]
