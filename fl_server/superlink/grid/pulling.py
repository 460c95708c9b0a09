"""Replies from a Grid, one at a time: over Flower's gRPC grid without its one-second waits and without its lists.

`GrpcGrid.pull_messages` returns every reply that has come, whole, and waits a second for any whose arrays are still on
their way. Here a reply is put together when it is complete and asked for: the server holds one, and waits for none.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from threading import Lock

import grpc
from flwr.app import Error, Message
from flwr.app.message import make_message
from flwr.app.metadata import Metadata
from flwr.proto.appio_pb2 import PullAppMessagesRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree, PullObjectRequest
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import UnexpectedObjectContentError
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectIdNotPreregisteredError,
    ObjectUnavailableError,
    inflate_object_from_contents,
    pull_objects,
)
from flwr.supercore.run import RunNotRunningException
from flwr.superlink.grid import GrpcGrid
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from fl_common.errors import RejectedReply
from fl_common.messages import packed_arrays
from fl_common.trust.untrusted_text import clean
from fl_server.rounds.clock import TimedGrid
from fl_server.rounds.reply_limits import MB
from fl_server.superlink.fleet.reply_bounds import OBJECTS_PER_ARRAY, Bounds
from fl_server.superlink.grid.chunked_arrays import joined

OBJECT_WAIT_SECONDS = 0.005
STRAGGLING_SECONDS = 0.5  # a reply's head comes last; for what is then still missing others are not kept waiting longer
# All that a grid raises where the SuperLink around it fell, hung or forgot: not a word about the run.
SUPERLINK_ERRORS = (
    grpc.RpcError,
    RunNotRunningException,
    ObjectIdNotPreregisteredError,
    ObjectUnavailableError,
)
TOO_LARGE, MALFORMED, METRICS, NAME, LEFT = 901, 902, 903, 904, 905  # ours: Flower's codes are small
REASONS = {TOO_LARGE: "size", MALFORMED: "malformed", METRICS: "metrics", NAME: "name", LEFT: "left"}
CODES = {reason: code for code, reason in REASONS.items()}
WITHDRAWN = b"withdrawn"  # stands on a SuperLink of ours in the place of a reply that was too large (reception.py)
BROKEN = b"broken"  # or of one whose client was gone before it had come whole (reception.py)
NODE_UNAVAILABLE = 5  # Flower's ErrorCode
GONE = "the client was gone before its reply had come whole"
TAKEN_BACK = "the reply was larger than max_reply_mb allows, and was dropped as it came"


class Inbox:
    """The replies to one round's messages. Any Grid that is not Flower's over gRPC is asked in Flower's way.

    bounds: the most that a reply may be; of a larger one no more than that is fetched.
    """

    def __init__(self, grid: Grid, bounds: Bounds | None = None) -> None:
        self._grid = grid
        self._bounds = bounds or Bounds()
        self._announced: dict[str, _Announced] = {}  # by the reply's id

    def take(self, message_ids: Iterable[str]) -> Iterator[Message]:
        """Yield the replies to `message_ids` that are complete; one that cannot be read comes as an error reply."""
        grid = self._grid
        if not isinstance(grid, GrpcGrid):
            yield from grid.pull_messages(message_ids)
            return
        heard = {announced.reply_to for announced in self._announced.values()}
        asked = [identity for identity in message_ids if identity not in heard]
        if asked:
            response = grid._stub.PullMessages(PullAppMessagesRequest(message_ids=asked))
            for proto, tree in zip(response.messages_list, response.message_object_trees, strict=True):
                identity = proto.metadata.message_id
                self._announced[identity] = _Announced(proto.metadata.reply_to_message_id, tree, [identity])
        for identity in [identity for identity, each in self._announced.items() if _has_come(grid, each)]:
            announced = self._announced[identity]
            try:
                message = _assemble(grid, identity, announced, self._bounds)
            except ObjectUnavailableError:  # looked for again, one object after the other, until the deadline
                announced.missing = self._bounds.check_tree(announced.tree)
                continue
            del self._announced[identity]
            yield message
            del message  # else it lives until the next one has come: two replies in memory

    def close(self) -> set[str]:
        """Drop what was announced and not taken; return the ids of the messages that it answers."""
        if isinstance(self._grid, GrpcGrid):
            for identity in self._announced:
                _confirm(self._grid, identity)
        dropped = {announced.reply_to for announced in self._announced.values()}
        self._announced = {}
        return dropped


@dataclass
class _Announced:
    """A reply that is on its way: what it answers, its objects, and those that are not known to have come."""

    reply_to: str
    tree: ObjectTree
    missing: list[str]


def discard(grid: Grid, message_ids: Iterable[str]) -> dict[str, bool]:
    """Drop the answers to messages that nobody waits for any more, without fetching their arrays.

    Return the ids of the messages that were answered, and whether by their client: the SuperLink answers for a node
    that is gone, and for a message that has expired.
    """
    if isinstance(grid, TimedGrid):
        return dict(grid.discard(message_ids))
    if not isinstance(grid, GrpcGrid):
        return {reply.metadata.reply_to_message_id: not reply.has_error() for reply in grid.pull_messages(message_ids)}
    response = grid._stub.PullMessages(PullAppMessagesRequest(message_ids=message_ids))
    for proto in response.messages_list:
        _confirm(grid, proto.metadata.message_id)
    heads = [proto.metadata for proto in response.messages_list]
    return {head.reply_to_message_id: head.src_node_id != grid.node.node_id for head in heads}


def _confirm(grid: GrpcGrid, message_id: str) -> None:
    """Tell the SuperLink that a reply was taken: it forgets its arrays."""
    grid._stub.ConfirmMessageReceived(
        ConfirmMessageReceivedRequest(node=grid.node, run_id=grid.run.run_id, message_object_id=message_id)
    )


def _has_come(grid: GrpcGrid, announced: _Announced) -> bool:
    """Say whether a reply is there: at first, its head, which comes last. An object that is unknown will never come."""
    while announced.missing:
        request = PullObjectRequest(node=grid.node, run_id=grid.run.run_id, object_id=announced.missing[-1])
        response = grid._stub.PullObject(request)
        if response.object_found and not response.object_available:
            return False
        announced.missing.pop()
    return True


class _TooLarge(Exception):  # noqa: N818
    """A reply is larger than it may be."""


def _metered(pull: Callable[[str], bytes], limit: int) -> Callable[[str], bytes]:
    """Return `pull` with an end: it raises _TooLarge once more than `limit` bytes have come."""
    lock, total = Lock(), 0

    def metered(object_id: str) -> bytes:
        nonlocal total
        content = pull(object_id)
        with lock:
            total += len(content)
            if total > limit:
                raise _TooLarge
        return content

    return metered if limit else pull


def _assemble(grid: GrpcGrid, message_id: str, announced: _Announced, bounds: Bounds) -> Message:
    """Put a reply together. Raises ObjectUnavailableError where a part of it is still on its way."""
    reply_to = announced.reply_to
    try:
        contents = pull_objects(
            bounds.check_tree(announced.tree),
            _metered(make_pull_object_fn_protobuf(grid._stub.PullObject, grid.node, grid.run.run_id), bounds.size),
            initial_backoff=OBJECT_WAIT_SECONDS,
            max_time=STRAGGLING_SECONDS,
            max_tries_per_object=None,
        )
        if contents.get(message_id) in (WITHDRAWN, BROKEN):
            raise ObjectIdNotPreregisteredError(message_id)
        bounds.check_contents(contents)
        message = inflate_object_from_contents(message_id, contents, objects=joined(contents))
    except _TooLarge:
        _confirm(grid, message_id)
        return _error(grid, reply_to, f"expected at most {bounds.size / MB:.1f} MB; got more", TOO_LARGE)
    except ObjectIdNotPreregisteredError:
        return _taken_back(grid, message_id, reply_to)
    except RejectedReply as error:
        _confirm(grid, message_id)
        return _error(grid, reply_to, error.detail, CODES[error.reason])
    except (*UNREADABLE, UnexpectedObjectContentError) as error:
        _confirm(grid, message_id)
        return _error(grid, reply_to, f"the reply cannot be read: {type(error).__name__}: {error}")
    _confirm(grid, message_id)
    if not isinstance(message, Message) or message.metadata.reply_to_message_id != reply_to:
        return _error(grid, reply_to, f"the reply is not the one announced: {type(message).__name__}")
    message.metadata.__dict__["_message_id"] = message_id
    if message.has_content():
        try:
            message.content = packed_arrays.unpack(
                message.content, most=OBJECTS_PER_ARRAY * bounds.arrays or packed_arrays.MOST_ARRAYS
            )
        except RejectedReply as error:
            return _error(grid, reply_to, error.detail)
    return message


UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, DecodeError)


def _taken_back(grid: GrpcGrid, message_id: str, reply_to: str) -> Message:
    """Return the error that the mark in the place of a reply stands for, or that it is there no more."""
    request = PullObjectRequest(node=grid.node, run_id=grid.run.run_id, object_id=message_id)
    withdrawn = grid._stub.PullObject(request).object_content == WITHDRAWN
    _confirm(grid, message_id)
    return _error(grid, reply_to, *((TAKEN_BACK, TOO_LARGE) if withdrawn else (GONE, NODE_UNAVAILABLE)))


def _error(grid: GrpcGrid, reply_to: str, reason: str, code: int = MALFORMED) -> Message:
    metadata = Metadata(
        run_id=grid.run.run_id,
        message_id="",
        src_node_id=grid.node.node_id,
        dst_node_id=grid.node.node_id,
        reply_to_message_id=reply_to,
        group_id="",
        created_at=0.0,
        ttl=0.0,
        message_type="system",
    )
    return make_message(metadata=metadata, error=Error(code=code, reason=clean(reason)))
