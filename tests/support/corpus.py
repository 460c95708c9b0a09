"""Malformed messages to Flower's Fleet API, from a seed: random bytes, damaged requests, requests of absurd values."""

import random
from collections.abc import Callable, Iterator
from typing import Any

from flwr.proto import fleet_pb2, heartbeat_pb2, message_pb2, recorddict_pb2, run_pb2
from flwr.proto.fab_pb2 import GetFabRequest
from flwr.proto.node_pb2 import Node

PREFIX = "/flwr.proto.Fleet/"
NUMBERS = (0, 1, -1, 2**31, 2**63 - 1, 2**64 - 1, 12345)
TIMES = (0.0, -1.0, 1e308, float("inf"), float("nan"), -float("inf"), 1e-320)
TEXTS = ("", "x", "0" * 64, "f" * 64, "../../etc/passwd", "'; DROP TABLE node; --", "\u0000", "💥" * 50, "a" * 5000)
BYTES = (b"", b"x", b"\x00" * 100, b"Message 00 0\x00", b"Array " + b"9" * 40 + b"\x00", b"\xff" * 4096)


def corpus(seed: int, count: int, *, node: int, run: int) -> Iterator[tuple[str, bytes]]:
    """Yield `count` (method, request), as from `node` in `run`, where these are not made up as well."""
    rng = random.Random(seed)
    for number in range(count):
        method, make = METHODS[number % len(METHODS)]
        request = make(Draw(rng, node, run)).SerializeToString()
        way = rng.choice(("as it is", "as it is", "damaged", "cut", "random", "twice", "empty", "large"))
        yield method, _spoilt(request, way, rng)


class Draw:
    """Absurd values, and now and then right ones, so that more than the first check is reached."""

    def __init__(self, rng: random.Random, node: int, run: int) -> None:
        self.rng = rng
        self._node = node
        self._run = run

    def number(self) -> int:
        return self.rng.choice(NUMBERS) % 2**64

    def node(self) -> Node:
        return Node(node_id=self._node if self.rng.random() < 0.6 else self.number())

    def run(self) -> int:
        return self._run if self.rng.random() < 0.6 else self.number()

    def text(self) -> str:
        return self.rng.choice(TEXTS)

    def blob(self) -> bytes:
        return self.rng.choice((*BYTES, self.rng.randbytes(self.rng.randrange(200))))

    def time(self) -> float:
        return self.rng.choice(TIMES)

    def tree(self, depth: int = 3) -> message_pb2.ObjectTree:
        children = [self.tree(depth - 1) for _ in range(self.rng.randrange(3))] if depth else []
        if children and self.rng.random() < 0.3:
            children.append(children[0])
        identity = self.rng.choice((*TEXTS, self.rng.randbytes(32).hex(), self.rng.randbytes(32).hex()))
        return message_pb2.ObjectTree(object_id=identity, children=children)

    def deep(self) -> message_pb2.ObjectTree:
        tree = self.tree(0)
        for _ in range(80):
            tree = message_pb2.ObjectTree(object_id=self.rng.randbytes(32).hex(), children=[tree])
        return tree

    def message(self) -> message_pb2.Message:
        metadata = message_pb2.Metadata(
            run_id=self.run(), message_id=self.text(), src_node_id=self.node().node_id,
            dst_node_id=self.rng.choice((1, self.number())), reply_to_message_id=self.text(), group_id=self.text(),
            ttl=self.time(), message_type=self.rng.choice(("train", "evaluate", *TEXTS)), created_at=self.time(),
        )  # fmt: skip
        message = message_pb2.Message(metadata=metadata)
        if self.rng.random() < 0.5:
            message.content.CopyFrom(recorddict_pb2.RecordDict())
        return message


def _push(draw: Draw) -> Any:
    count = draw.rng.choice((0, 1, 1, 2, 30))
    return fleet_pb2.PushMessagesRequest(
        node=draw.node(),
        messages_list=[draw.message() for _ in range(count)],
        message_object_trees=[
            draw.rng.choice((draw.tree, draw.deep))() for _ in range(draw.rng.choice((count, count + 1)))
        ],
        clientapp_runtime_list=[draw.time() for _ in range(draw.rng.choice((0, count, 7)))],
    )


METHODS: list[tuple[str, Callable[[Draw], Any]]] = [
    ("RegisterNode", lambda d: fleet_pb2.RegisterNodeFleetRequest(public_key=d.blob())),
    ("ActivateNode", lambda d: fleet_pb2.ActivateNodeRequest(public_key=d.blob(), heartbeat_interval=d.time())),
    ("DeactivateNode", lambda d: fleet_pb2.DeactivateNodeRequest(node_id=d.number())),
    ("UnregisterNode", lambda d: fleet_pb2.UnregisterNodeFleetRequest(node_id=d.number())),
    ("SendNodeHeartbeat", lambda d: heartbeat_pb2.SendNodeHeartbeatRequest(node=d.node(), heartbeat_interval=d.time())),
    ("PullMessages", lambda d: fleet_pb2.PullMessagesRequest(node=d.node(), message_ids=[d.text() for _ in range(3)])),
    ("PushMessages", _push),
    ("PushMessages", _push),
    ("GetRun", lambda d: run_pb2.GetRunRequest(node=d.node(), run_id=d.run())),
    ("GetFab", lambda d: GetFabRequest(node=d.node(), hash_str=d.text(), run_id=d.run())),
    ("PushObject", lambda d: message_pb2.PushObjectRequest(
        node=d.node(), run_id=d.run(), object_id=d.text(), object_content=d.blob())),
    ("PullObject", lambda d: message_pb2.PullObjectRequest(node=d.node(), run_id=d.run(), object_id=d.text())),
    ("ConfirmMessageReceived", lambda d: message_pb2.ConfirmMessageReceivedRequest(
        node=d.node(), run_id=d.run(), message_object_id=d.text())),
]  # fmt: skip


def _spoilt(request: bytes, way: str, rng: random.Random) -> bytes:
    if way == "random":
        return rng.randbytes(rng.randrange(1, 300))
    if way == "empty":
        return b""
    if way == "large":
        return request + b"\xfa\x7f\x80\x80\x40" + bytes(1 << 20)  # an unknown field of a MiB
    if way == "twice":
        return request + request
    if way == "cut":
        return request[: rng.randrange(len(request) + 1)]
    data = bytearray(request)
    for _ in range(rng.randrange(1, 6) if way == "damaged" and data else 0):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)
