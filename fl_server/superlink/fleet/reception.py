"""What nodes may leave at the SuperLink, and take away: one bounded reply to each message, and their own messages only.

Flower takes any number of objects of any size from a node, and keeps them until the run ends. Here a reply is counted
as its objects come, in the SuperLink's process, before the server's part of the run has heard of it. And a message is
forgotten by Flower as soon as anybody confirms it: here only its own node does, once the run has sent all of it.
"""

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from flwr.proto.message_pb2 import ConfirmMessageReceivedResponse
from flwr.server.superlink.fleet.grpc_rere.fleet_servicer import FleetServicer
from flwr.server.superlink.linkstate import LinkState, LinkStateFactory
from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.utils import int64_to_uint64

from fl_server.rounds.reply_limits import MB, allowed_bytes
from fl_server.superlink.fleet.object_store import indexed, is_part, is_whole, withdraw
from fl_server.superlink.fleet.reply_bounds import MOST_OBJECTS, OBJECTS_PER_ARRAY, objects_of
from fl_server.superlink.grid.pulling import BROKEN

log = logging.getLogger(__name__)

FLEET = "/flwr.proto.Fleet/"
ROOM_OBJECTS = 1_000  # what a reply may have beyond those of its message: small arrays may come one by one
OBJECT_BYTES = 64 * MB  # of one object: a chunk of an array has 5 MB, all small arrays together may have more
UNKNOWN_SENT = 512 * MB  # what is taken to have been sent where a restart has forgotten it
REMEMBERED = 50_000  # sizes of objects, messages and replies
AT_ONCE = 3  # replies that a node pushes side by side

Call = Callable[[Any, grpc.ServicerContext], Any]
Size = list[int]  # of an object in bytes: one number, UNKNOWN until somebody has fetched it
UNKNOWN = -1


@dataclass(frozen=True)
class GivenMessage:
    """A message that a node was given, and its objects."""

    node: int
    sizes: dict[str, Size]


@dataclass(eq=False)
class IncomingReply:
    """A reply whose objects are coming: the ids that it may consist of, those that came, the bytes left for others."""

    head: str
    objects: set[str]
    limit: int
    left: int
    came: set[str] = field(default_factory=set)


class Reception(grpc.ServerInterceptor):  # type: ignore[misc,unused-ignore]
    """Sits in front of Flower's Fleet API, behind the authentication of nodes."""

    def __init__(self, state_factory: LinkStateFactory, object_store_factory: ObjectStoreFactory) -> None:
        self._states, self._stores = state_factory, object_store_factory
        self._lock = threading.Lock()
        self._sizes: OrderedDict[str, Size] = OrderedDict()  # by id of an object
        self._sent: OrderedDict[str, GivenMessage] = OrderedDict()  # by id of the message
        self._replies: OrderedDict[str, IncomingReply] = OrderedDict()  # id of a message -> the reply to it
        self._coming: dict[int, deque[IncomingReply]] = {}  # node -> the replies that it pushes
        self._run_limits: dict[int, float] = {}
        self._watch(state_factory.state())
        indexed(object_store_factory.store())

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """Wrap the five calls by which messages and objects come and go."""
        handler = continuation(handler_call_details)
        name = handler_call_details.method.removeprefix(FLEET)
        wrap = {
            "PullMessages": self._pull_messages,
            "PullObject": self._pull_object,
            "PushMessages": self._push_messages,
            "PushObject": self._push_object,
            "ConfirmMessageReceived": self._confirm,
        }.get(name)
        if handler is None or wrap is None or handler.unary_unary is None:
            return handler
        call = handler.unary_unary
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: wrap(call, request, context),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _pull_messages(self, call: Call, request: Any, context: grpc.ServicerContext) -> Any:
        response = call(request, context)
        for message, tree in zip(response.messages_list, response.message_object_trees, strict=True):
            with self._lock:
                sizes = {each: self._size(each) for each in objects_of(tree, MOST_OBJECTS) or []}
                _remember(self._sent, message.metadata.message_id, GivenMessage(request.node.node_id, sizes))
        return response

    def _pull_object(self, call: Call, request: Any, context: grpc.ServicerContext) -> Any:
        response = call(request, context)
        if response.object_available:
            with self._lock:
                self._size(request.object_id)[0] = len(response.object_content)
        return response

    def _push_messages(self, call: Call, request: Any, context: grpc.ServicerContext) -> Any:
        if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "expected one message and its tree of objects")
        head, tree = request.messages_list[0].metadata, request.message_object_trees[0]
        most = self._most_objects(head.reply_to_message_id)
        objects = objects_of(tree, most)
        if objects is None:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"a reply to this message has at most {most} objects")
        elif head.src_node_id != request.node.node_id or head.message_id != objects[-1]:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "expected a message of the node that sends it")
        elif is_part(self._stores.store(), head.message_id):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "expected a reply, not a part of another message")
        elif not self._is_known(head) and _run_of(self._states.state(), head) != head.run_id:
            context.abort(grpc.StatusCode.NOT_FOUND, "no message waits for this reply")
        elif not self._expect(request.node.node_id, head.reply_to_message_id, head.run_id, objects):
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "there was a reply to this message")
        return call(request, context)

    def _push_object(self, call: Call, request: Any, context: grpc.ServicerContext) -> Any:
        reply = self._take(request.node.node_id, request.object_id, len(request.object_content))
        if reply is None:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "this object is of no reply that was announced")
        elif reply.left < 0:
            withdraw(self._stores.store(), reply.head)
            most = f"{reply.limit / MB:.1f} MB, the most that the server takes (max_reply_mb)"
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"the reply is larger than {most}")
        return call(request, context)

    def _confirm(self, call: Call, request: Any, context: grpc.ServicerContext) -> Any:
        """Let a node's own message be forgotten, once all of it is there: else the run could not send the rest."""
        message_id = request.message_object_id
        with self._lock:
            sent = self._sent.get(message_id)
        node = sent.node if sent is not None else addressee(self._states.state(), message_id)
        if node not in (None, request.node.node_id) or not is_whole(self._stores.store(), message_id):
            log.warning("node %d confirmed what it was not given whole: that does not count", request.node.node_id)
            return ConfirmMessageReceivedResponse()
        return call(request, context)

    def _watch(self, state: LinkState) -> None:
        """See to it that half a reply does not outlast the process that has its other half."""
        activate, deactivate = state.activate_node, state.deactivate_node

        def activated(node_id: int, heartbeat_interval: float) -> bool:
            self._give_up_halves(node_id)
            return activate(node_id, heartbeat_interval)

        def deactivated(node_id: int) -> bool:
            self._give_up_halves(node_id)
            return deactivate(node_id)

        state.activate_node, state.deactivate_node = activated, deactivated  # type: ignore[method-assign]

    def _give_up_halves(self, node_id: int) -> None:
        """Take back the replies of a node that did not come whole: who waits for one learns that its client is gone."""
        store = self._stores.store()
        with self._lock:
            halves = [
                reply
                for reply in self._coming.get(node_id, ())
                if reply.left >= 0 and reply.head in store and not all(map(store.get, reply.objects))
            ]
            for reply in halves:
                reply.objects = reply.came = set()
        for reply in halves:
            log.warning("node %d was gone before its reply had come whole: that is given up", node_id)
            withdraw(store, reply.head, BROKEN)

    def _is_known(self, head: Any) -> bool:
        """Say whether this reply was announced before: by now the run may have been told, and wait for its objects."""
        with self._lock:
            reply = self._replies.get(head.reply_to_message_id)
            return reply is not None and reply.head == head.message_id

    def _expect(self, node: int, reply_to: str, run_id: int, objects: list[str]) -> bool:
        """Take note of a reply that is announced, once or again. False where it is too late, or too large, for it."""
        limit = self._limit(reply_to, run_id)
        with self._lock:
            reply = self._replies.get(reply_to) or IncomingReply(objects[-1], set(objects), limit, limit)
            if reply.head != objects[-1] or reply.left < 0:
                return False
            _remember(self._replies, reply_to, reply)
            coming = self._coming.setdefault(node, deque(maxlen=AT_ONCE))
            if reply not in coming:
                if len(coming) == AT_ONCE:
                    coming[0].objects = coming[0].came = set()  # the oldest makes room
                coming.append(reply)
            return True

    def _take(self, node: int, object_id: str, size: int) -> IncomingReply | None:
        """Count an object, the first time that it comes, and return the reply that it is a part of."""
        with self._lock:
            newest_first = reversed(self._coming.get(node, ()))  # replies may have objects in common
            reply = next((each for each in newest_first if object_id in each.objects), None)
            if reply is not None and object_id not in reply.came:
                reply.left -= size
                reply.came.add(object_id)
            return reply

    def _most_objects(self, message_id: str) -> int:
        with self._lock:
            sent = self._sent.get(message_id)
        if sent is None:  # a restart has forgotten it
            return MOST_OBJECTS
        return min(MOST_OBJECTS, ROOM_OBJECTS + OBJECTS_PER_ARRAY * len(sent.sizes))

    def _limit(self, message_id: str, run_id: int) -> int:
        if run_id not in self._run_limits:
            runs = self._states.state().get_run_info(run_ids=[run_id])
            self._run_limits[run_id] = float(runs[0].override_config.get("max_reply_mb", 0.0)) if runs else 0.0
        with self._lock:
            sent = self._sent.get(message_id)
        sizes = {"": [UNKNOWN_SENT]} if sent is None else sent.sizes
        for object_id, size in sizes.items():
            if size[0] == UNKNOWN:  # this node has not fetched it, nor has anybody else
                size[0] = len(self._stores.store().get(object_id) or b"")
        return allowed_bytes(self._run_limits[run_id], sum(size[0] for size in sizes.values()))

    def _size(self, object_id: str) -> Size:
        size = self._sizes.get(object_id, [UNKNOWN])
        _remember(self._sizes, object_id, size)
        return size


def of(servicer: object) -> list[grpc.ServerInterceptor]:
    """Return what bounds a servicer of the Fleet API; nothing for another one."""
    if not isinstance(servicer, FleetServicer):
        return []
    return [Reception(servicer.state_factory, servicer.objectstore_factory)]


def _run_of(state: LinkState, head: Any) -> int | None:
    """Return the run of the message that a reply answers, where one to its node waits for that; None otherwise."""
    message_id, node_id = head.reply_to_message_id, head.src_node_id
    if isinstance(state, SqlLinkState):
        row = state.get_valid_message_ins(message_id)
        mine = row is not None and int64_to_uint64(row["dst_node_id"]) == node_id
        return int64_to_uint64(row["run_id"]) if row is not None and mine else None
    if isinstance(state, InMemoryLinkState):
        message = state.message_ins_store.get(message_id)
        mine = message is not None and message.metadata.dst_node_id == node_id
        return int(message.metadata.run_id) if message is not None and mine else None
    return None


def addressee(state: LinkState, message_id: str) -> int | None:
    """Return the node that a message is for; None where Flower knows no such message, or no more."""
    if isinstance(state, SqlLinkState):
        rows = state.query("SELECT dst_node_id FROM message_ins WHERE message_id = :id", {"id": message_id})
        return int64_to_uint64(rows[0]["dst_node_id"]) if rows else None
    if isinstance(state, InMemoryLinkState):
        message = state.message_ins_store.get(message_id)
        return int(message.metadata.dst_node_id) if message is not None else None
    return None


def _remember(known: "OrderedDict[str, Any]", key: str, value: Any) -> None:
    known[key] = value
    known.move_to_end(key)
    while len(known) > REMEMBERED:
        known.popitem(last=False)
