"""A client's connection to the server: Flower's gRPC Fleet API, one call a method, no retries of its own.

Messages are trees of content-addressed objects: an envelope comes (or goes) first, then every object it names. Flower
waits a whole second before it asks again for an object that is still on its way; here it is milliseconds.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpc
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.client.grpc_rere_client.node_auth_client_interceptor import NodeAuthClientInterceptor
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto import fleet_pb2, fleet_pb2_grpc, heartbeat_pb2
from flwr.proto.message_pb2 import ObjectTree, PullObjectRequest
from flwr.proto.node_pb2 import Node as NodeProto
from flwr.supercore.grpc import create_channel
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, no_object_id_recompute
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import pull_and_inflate_object_from_tree, push_objects
from flwr.supercore.interceptors import RuntimeVersionClientInterceptor
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes

OBJECT_WAIT_SECONDS = 0.01  # first wait for an object that the server has announced but not yet received
OBJECT_WAIT_LIMIT = 60.0
CALL_SECONDS = 30.0  # a small call that takes longer counts as a lost connection

Envelope = tuple[Message, ObjectTree]
Keys = tuple[Any, Any]


class Connection:
    """One channel to the Fleet API under one key pair. Every method raises grpc.RpcError when the network does."""

    def __init__(
        self,
        address: str,
        *,
        root_certificates: bytes | None = None,
        keys: Keys | None = None,
        heartbeat_seconds: float = 10.0,
    ) -> None:
        self._keys = keys or generate_key_pairs()
        self._public_key = public_key_to_bytes(self._keys[1])
        self._heartbeat_seconds = heartbeat_seconds
        self._channel = create_channel(
            address,
            insecure=root_certificates is None,
            root_certificates=root_certificates,
            interceptors=[
                RuntimeVersionClientInterceptor(component_name="SuperNode"),
                NodeAuthClientInterceptor(*self._keys),
            ],
        )
        self._stub = fleet_pb2_grpc.FleetStub(self._channel)
        self.node_id = 0
        self._sent: PullObjectRequest | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    @property
    def _node(self) -> NodeProto:
        return NodeProto(node_id=self.node_id)

    def join(self) -> int:
        """Register this key with the server where it is new, go online, and return the node id."""
        try:
            self._stub.RegisterNode(
                fleet_pb2.RegisterNodeFleetRequest(public_key=self._public_key), timeout=CALL_SECONDS
            )
            self.node_id = 0  # the key was new to the server: one that fell and forgot, if this node was there before
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:  # that one: the server knows the key already
                raise
        if not (self.node_id and self.beat()):  # still online: only the connection was lost
            request = fleet_pb2.ActivateNodeRequest(
                public_key=self._public_key, heartbeat_interval=self._heartbeat_seconds
            )
            self.node_id = self._stub.ActivateNode(request, timeout=CALL_SECONDS).node_id
        return self.node_id

    def beat(self) -> bool:
        """Send a heartbeat. False means that the server no longer knows this node as online."""
        request = heartbeat_pb2.SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=self._heartbeat_seconds)
        return bool(self._stub.SendNodeHeartbeat(request, timeout=CALL_SECONDS).success)

    def leave(self) -> None:
        """Say goodbye: the server counts this node out at once instead of waiting for its heartbeats to stop."""
        self._stub.DeactivateNode(fleet_pb2.DeactivateNodeRequest(node_id=self.node_id), timeout=2.0)
        self._stub.UnregisterNode(fleet_pb2.UnregisterNodeFleetRequest(node_id=self.node_id), timeout=2.0)

    def poll(self) -> Envelope | None:
        """Return the next message's envelope and the tree of its objects, or None when nothing waits."""
        response = self._stub.PullMessages(fleet_pb2.PullMessagesRequest(node=self._node), timeout=CALL_SECONDS)
        if not response.messages_list:
            return None
        return message_from_proto(response.messages_list[0]), response.message_object_trees[0]

    def fetch(self, envelope: Envelope) -> Message:
        """Pull the objects of a message and put it together."""
        head, tree = envelope
        run_id = head.metadata.run_id
        message: Message = pull_and_inflate_object_from_tree(
            tree,
            make_pull_object_fn_protobuf(self._stub.PullObject, self._node, run_id),
            make_confirm_message_received_fn_protobuf(self._stub.ConfirmMessageReceived, self._node, run_id),
            return_type=Message,
            initial_backoff=OBJECT_WAIT_SECONDS,
            max_time=OBJECT_WAIT_LIMIT,
        )
        message.metadata.__dict__["_message_id"] = head.metadata.message_id
        return message

    def send(self, reply: Message, seconds: float) -> None:
        """Push a reply: its envelope, then the objects that the server does not have yet."""
        run_id = reply.metadata.run_id
        with no_object_id_recompute():
            reply.metadata.__dict__["_message_id"] = reply.object_id
            request = fleet_pb2.PushMessagesRequest(
                node=self._node,
                messages_list=[message_to_proto(_bare(reply))],
                message_object_trees=[get_object_tree(reply)],
                clientapp_runtime_list=[seconds],
            )
            wanted = set(self._stub.PushMessages(request, timeout=CALL_SECONDS).objects_to_push)
            push: Callable[[str, bytes], None] = make_push_object_fn_protobuf(self._stub.PushObject, self._node, run_id)
            push_objects(get_all_nested_objects(reply), push, object_ids_to_push=wanted)
            self._sent = PullObjectRequest(node=self._node, run_id=run_id, object_id=reply.object_id)

    def taken(self) -> bool:
        """Say whether the run has taken the last reply; True where there was none, or where the run is over."""
        if self._sent is None:
            return True
        try:
            return not self._stub.PullObject(self._sent, timeout=CALL_SECONDS).object_found
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.PERMISSION_DENIED:  # the run is over
                return True
            raise


def _bare(message: Message) -> Message:
    return remove_content_from_message(message) if message.has_content() else message
