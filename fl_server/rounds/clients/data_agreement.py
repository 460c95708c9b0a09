"""Whether the clients of a run mean the same by their data: who calls it otherwise is left out, and told.

What more than half of them say counts; from the first round on it is what the run has settled on.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fl_common.errors import DataError
from fl_common.tasks.client_data.data_names import Difference, Schema, difference, parse
from fl_server.superlink.grid.pushing import push

DIFFERS = "query"  # the type of the message that tells a client of it
OTHERS_LACK = "others-lack"


class Agreement:
    """Compares what the clients that are there call their data.

    known: returns {node: schema} of the clients that told. settled: the schema of a run that goes on, as JSON, or "".
    """

    def __init__(
        self,
        grid: Grid,
        known: Callable[[], Mapping[int, Schema]],
        announce: Callable[[Mapping[str, Any]], object],
        *,
        identities: Callable[[], Mapping[int, str]],
        settled: str = "",
    ) -> None:
        self._grid, self._known, self._announce, self._identities = grid, known, announce, identities
        self._settled = parse(settled) if settled else None
        self._common: Schema | None = self._settled
        self._there: Mapping[int, Schema] = {}
        self._told: dict[int, str] = {}
        self.odd: Mapping[int, Difference] = {}

    @property
    def settled(self) -> str:
        """What the run has settled on, for a checkpoint; "" where its clients have no names."""
        return self._settled.text() if self._settled else ""

    def settle(self) -> None:
        """Keep to what most clients say now: a round begins."""
        self._settled = self._settled or self._common

    def agreeing(self, nodes: Sequence[int]) -> Sequence[int]:
        """Return those of `nodes` that mean the same as most, or as the run does, or that told nothing."""
        known = self._known()
        self._there = {node: known[node] for node in nodes if node in known} if known else {}
        if not self._there:
            self.odd = {}
            return nodes
        common = self._common = self._settled or _common(list(self._there.values()))
        self.odd = self._differing(common)
        if self._settled is None and 2 * len(self.odd) >= len(self._there):  # there is no most: nobody is right
            other = next(schema for node, schema in self._there.items() if node in self.odd)
            self.odd = {**self._differing(other), **self.odd}
        for node in self.odd:
            self._tell(node)
        return [node for node in nodes if node not in self.odd] if self.odd else nodes

    def _differing(self, common: Schema) -> dict[int, Difference]:
        found = ((node, difference(schema, common)) for node, schema in self._there.items())
        return {node: each for node, each in found if each is not None}

    def order(self, node: int) -> list[str]:
        """Return the order in which a node is to take its table's columns; [] where that is its own order."""
        schema, common = self._there.get(node), self._settled
        if schema is None or common is None or list(schema.columns) == list(common.columns):
            return []
        return list(common.columns)

    def error(self) -> DataError:
        """Return the error of a run that has too few clients left for all those that differ."""
        told = "; ".join(f"{self._who(node)}: {each.text}" for node, each in sorted(self.odd.items()))
        return DataError(
            f"the clients' data are not called alike, so no round begins. {told}. Make them alike at the clients, with "
            "the names of their files, `prepare` of the task or --ignore, and start again."
        )

    def _tell(self, node: int) -> None:
        odd = self.odd[node]
        if self._told.get(node) == odd.text:
            return
        self._told[node] = odd.text
        identity = self._identities().get(node)
        self._announce({"event": "differs", "node": str(node), "id": identity, "detail": odd.text})
        config = ConfigRecord({OTHERS_LACK: list(odd.own)})
        push(self._grid, [Message(RecordDict({"config": config}), dst_node_id=node, message_type=DIFFERS)])

    def _who(self, node: int) -> str:
        identity = self._identities().get(node)
        return f"client {identity} (node {node})" if identity else f"node {node}"


def _common(schemas: Sequence[Schema]) -> Schema:
    """Return the schema that most agree with, then the one with fewest names, then the one that comes most often."""
    often = [(parse(text), times) for text, times in sorted(Counter(schema.text() for schema in schemas).items())]

    def weight(found: tuple[Schema, int]) -> tuple[int, int, int]:
        schema, times = found
        return sum(difference(each, schema) is None for each in schemas), -len(schema.names()), times

    return max(often, key=weight)[0]
