"""Messages to a Grid: over Flower's gRPC grid without its copies of the whole model, and past a SuperLink that falls.

Flower deflates everything before it sends anything, and takes it for an error of the run where an object is no longer
wanted. That is what a call finds that is made again because the SuperLink fell before it could answer: by then the
object may have been delivered, answered and forgotten.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TypeVar

from flwr.app import Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.appio_pb2 import PushAppMessagesRequest
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.superlink.grid import GrpcGrid

from fl_common.messages import packed_arrays

log = logging.getLogger(__name__)

T = TypeVar("T")

AT_ONCE = 2  # objects on their way, and in memory once more


def push(grid: Grid, messages: Sequence[Message]) -> list[str]:
    """Send messages and return their ids; "" for one that could not be sent. Over gRPC small arrays go together."""
    if not isinstance(grid, GrpcGrid):
        return [identity or "" for identity in grid.push_messages(messages)]
    known: dict[int, RecordDict] = {}  # messages share their arrays, so each record is packed once
    for message in messages:
        message.content = _packed(message.content, known)
    with no_object_id_recompute():
        return _sent(grid, messages)


def _packed(content: RecordDict, known: dict[int, RecordDict]) -> RecordDict:
    parts = RecordDict()
    for key, record in content.items():
        if id(record) not in known:
            known[id(record)] = packed_arrays.pack(RecordDict({key: record}))
        parts.update(known[id(record)])
    return parts


def _sent(grid: GrpcGrid, messages: Sequence[Message]) -> list[str]:
    objects: dict[str, InflatableObject] = {}
    request = PushAppMessagesRequest()
    for message in messages:
        message.metadata.__dict__ |= {"_run_id": grid.run.run_id, "_src_node_id": grid.node.node_id}
        message.metadata.__dict__["_message_id"] = message.object_id
        objects |= get_all_nested_objects(message)
        bare = remove_content_from_message(message) if message.has_content() else message
        request.messages_list.append(message_to_proto(bare))
        request.message_object_trees.append(get_object_tree(message))
    response = grid._stub.PushMessages(request)
    wanted = set(response.objects_to_push)
    _push_objects(grid, ((identity, each) for identity, each in objects.items() if identity in wanted))
    return list(response.message_ids)


def _push_objects(grid: GrpcGrid, objects: Iterator[tuple[str, InflatableObject]]) -> None:
    """Push objects; each is deflated only when its turn has come."""

    def send(item: tuple[str, InflatableObject]) -> None:
        identity, each = item
        request = PushObjectRequest(
            node=grid.node, run_id=grid.run.run_id, object_id=identity, object_content=each.deflate()
        )
        if not grid._stub.PushObject(request).stored:
            log.info("object %s is no longer wanted: its message was answered already, or the run is over", identity)

    in_turn(send, objects)


def in_turn(work: Callable[[T], object], items: Iterable[T], workers: int = AT_ONCE) -> None:
    """Do `work` with every item, `workers` at once, none of them before its turn. Raises the first error there is."""
    remaining, lock = iter(items), Lock()
    failed = False

    def worker() -> None:
        nonlocal failed
        while not failed:
            with lock:
                item = next(remaining, END)
            if item is END:
                return
            try:
                work(item)  # type: ignore[arg-type]
            except BaseException:
                failed = True
                raise

    with ThreadPoolExecutor(workers) as pool:
        done = [pool.submit(worker) for _ in range(workers)]
    for each in done:
        each.result()


END = object()
