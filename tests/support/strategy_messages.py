"""Real messages without a network: what a client would have sent back."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MessageType, MetricRecord, RecordDict

from fl_common.messages.arrays import encode
from strategies.fedavg import FedAvg


def ask(kind: str = MessageType.TRAIN, node: int = 1) -> Message:
    """A message as a server sends it to `node`."""
    return Message(content=RecordDict(), dst_node_id=node, message_type=kind)


def reply(arrays: Any, examples: Any = 1, *, node: int = 1, kind: str = MessageType.TRAIN, **metrics: Any) -> Message:
    """A client's reply; `arrays` is a dict of NumPy arrays, an ArrayRecord, or None; `examples` None leaves it out."""
    content = RecordDict()
    if arrays is not None:
        content["arrays"] = arrays if isinstance(arrays, ArrayRecord) else encode(arrays)
    content["metrics"] = MetricRecord(({} if examples is None else {"num-examples": examples}) | metrics)
    return Message(content, reply_to=ask(kind, node))


def failed(reason: str, node: int = 1) -> Message:
    """The reply of a client whose code raised."""
    return Message(Error(code=1, reason=reason), reply_to=ask(node=node))


def begin(strategy: FedAvg, model: Mapping[str, np.ndarray], nodes: int = 4, server_round: int = 1) -> list[Message]:
    """Start a round on nodes 1 to `nodes` and return the messages."""
    strategy.eligible = lambda: range(1, nodes + 1)
    return strategy.configure_train(server_round, encode(model), ConfigRecord(), None)
