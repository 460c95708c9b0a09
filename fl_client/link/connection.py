"""A client's connection to the server: Flower's gRPC Fleet API, one call a method, no retries of its own.

Every call is signed with the client's key (Flower's node authentication) and names the session, which is this process.

Messages are trees of content-addressed objects: an envelope comes (or goes) first, then every object it names. Flower
waits a whole second before it asks again for an object that is still on its way; here it is milliseconds.
"""

import logging
import secrets
import threading
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
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, no_object_id_recompute
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectIdNotPreregisteredError,
    pull_and_inflate_object_from_tree,
    push_objects,
)
from flwr.supercore.interceptors import RuntimeVersionClientInterceptor

from fl_client.link.enrolment import signed
from fl_common.errors import AccessError, Revoked, UnknownClient
from fl_common.network import channels
from fl_common.network.tls_handshake import diagnose
from fl_common.trust import enrolment, keys
from fl_common.trust.untrusted_text import clean

log = logging.getLogger(__name__)

OBJECT_WAIT_SECONDS = 0.01  # first wait for an object that the server has announced but not yet received
OBJECT_WAIT_LIMIT = 60.0
CALL_SECONDS = 30.0  # a small call that takes longer counts as a lost connection

LONGEST_POLL_SECONDS = 30.0
SHORTEST_HEARTBEAT, LONGEST_HEARTBEAT = 0.25, 1800.0  # seconds that a server may ask for
RETURN_SECONDS = 0.1  # pause before the open call is made again after a lost connection

Envelope = tuple[Message, ObjectTree]
Unwanted = ObjectIdNotPreregisteredError  # while a reply was on its way, the server gave it up


class _Session(grpc.UnaryUnaryClientInterceptor):
    """Names the session in each call."""

    def __init__(self, name: str) -> None:
        self._header = (enrolment.SESSION_HEADER, name)

    def intercept_unary_unary(self, continuation: Callable[[Any, Any], Any], details: Any, request: Any) -> Any:
        return continuation(details._replace(metadata=[*(details.metadata or []), self._header]), request)


class Connection:
    """One channel to the Fleet API under one key. Every method raises grpc.RpcError when the network does.

    schema: what this client's data are called, as JSON, which it tells just before it joins.
    killed: how the client before it was killed for memory, which it tells once.

    Without `root_certificates` it is plaintext. Without a `key` it makes one that is forgotten when it leaves.
    """

    def __init__(
        self,
        address: str,
        *,
        root_certificates: bytes | None = None,
        key: keys.PrivateKey | None = None,
        heartbeat_seconds: float = 10.0,
        schema: str = "",
        killed: str = "",
    ) -> None:
        self._schema, self._killed = schema, killed
        self._address = address
        self._root_certificates = root_certificates
        self._lasting = key is not None
        self._key = key or keys.generate()
        self._public_key = keys.public_pem(self._key.public_key())
        self._session = secrets.token_hex(16)
        self.heartbeat_seconds = heartbeat_seconds
        self.poll_seconds = 0.0  # how far apart the server wants an idle node's polls to be; 0: it does not say
        self._channel = channels.lasting(address, root_certificates)
        self._stub = fleet_pb2_grpc.FleetStub(
            grpc.intercept_channel(
                self._channel,
                RuntimeVersionClientInterceptor(component_name="SuperNode"),
                NodeAuthClientInterceptor(self._key, self._key.public_key()),
                _Session(self._session),
            )
        )
        self.node_id = 0
        self._sent: PullObjectRequest | None = None
        self._fetched: Callable[[], None] | None = None
        self._knows_sessions = False
        self._stay: grpc.Call | None = None
        self.expelled = threading.Event()  # set when the server ends the open call: time to join again

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._let_go()
        self._channel.close()

    @property
    def _node(self) -> NodeProto:
        return NodeProto(node_id=self.node_id)

    def join(self) -> int:
        """Go online and return the node id. Raises AccessError where the server will not have this client.

        A key that is forgotten afterwards is registered first; a lasting one only where the server wants that, which
        is a Flower SuperLink without node authentication.
        """
        if not self._lasting:
            self._register()
        if self._knows_sessions or not (self.node_id and self.beat()):  # else only the connection was lost
            self._describe()
            request = fleet_pb2.ActivateNodeRequest(
                public_key=self._public_key, heartbeat_interval=self.heartbeat_seconds
            )
            try:
                response, call = self._stub.ActivateNode.with_call(request, timeout=CALL_SECONDS)
            except grpc.RpcError as error:
                raise_if_refused(error)
                if not self._lasting or error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                    raise
                self._register()
                response, call = self._stub.ActivateNode.with_call(request, timeout=CALL_SECONDS)
            self.node_id = response.node_id
            told = dict(call.initial_metadata() or ()).get(enrolment.HEARTBEAT_HEADER)
            self._knows_sessions = told is not None
            self.heartbeat_seconds = heartbeat_told(told, self.heartbeat_seconds)
        if self._knows_sessions:
            self._hold_open()
        return self.node_id

    def beat(self) -> bool:
        """Send a heartbeat. False means that the server no longer knows this node as online."""
        request = heartbeat_pb2.SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=self.heartbeat_seconds)
        return bool(self._stub.SendNodeHeartbeat(request, timeout=CALL_SECONDS).success)

    def leave(self) -> None:
        """Say goodbye: the server counts this node out at once instead of waiting for its heartbeats to stop."""
        self._let_go()
        self._stub.DeactivateNode(fleet_pb2.DeactivateNodeRequest(node_id=self.node_id), timeout=2.0)
        if not self._lasting:  # Flower never lets a key in again that was unregistered
            self._stub.UnregisterNode(fleet_pb2.UnregisterNodeFleetRequest(node_id=self.node_id), timeout=2.0)

    def diagnosis(self) -> str:
        """Say why TLS with the server fails; "" where it does not, or where nobody answers."""
        return diagnose(self._address, self._root_certificates)

    @property
    def is_another(self) -> str:
        """What is wrong where a server answers, but does not know the calls of Fleet."""
        return (
            f"the server at {self._address} answers, but not as Flower's Fleet API. Is it its Fleet address (port "
            "9092 by default), and not that of Control or ServerAppIo?"
        )

    def poll(self) -> Envelope | None:
        """Return the next message's envelope and the tree of its objects, or None when nothing waits."""
        request = fleet_pb2.PullMessagesRequest(node=self._node)
        response, call = self._stub.PullMessages.with_call(request, timeout=CALL_SECONDS)
        told = dict(call.trailing_metadata() or ()).get(enrolment.POLL_HEADER)
        self.poll_seconds = seconds_told(told)
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
            lambda message_id: self._note_fetched(run_id, message_id),
            return_type=Message,
            initial_backoff=OBJECT_WAIT_SECONDS,
            max_time=OBJECT_WAIT_LIMIT,
        )
        message.metadata.__dict__["_message_id"] = head.metadata.message_id
        return message

    def send(self, reply: Message, seconds: float) -> None:
        """Push a reply: its envelope, then the objects that the server does not have yet.

        Raises Unwanted where the server has given the reply up meanwhile.
        """
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
        if self._fetched is not None:
            self._fetched()
            self._fetched = None

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

    def _note_fetched(self, run_id: int, message_id: str) -> None:
        """Keep the server's copy of a message until it is answered: who takes this node's place may need it."""
        confirm = make_confirm_message_received_fn_protobuf(self._stub.ConfirmMessageReceived, self._node, run_id)
        self._fetched = lambda: confirm(message_id)

    def _register(self) -> None:
        try:
            self._stub.RegisterNode(
                fleet_pb2.RegisterNodeFleetRequest(public_key=self._public_key), timeout=CALL_SECONDS
            )
            self.node_id = 0  # the key was new to the server: one that fell and forgot, if this node was there before
        except grpc.RpcError as error:
            raise_if_refused(error)
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:  # that one: known already, or enrolled first
                raise

    def _describe(self) -> None:
        """Tell what this client's data are called, and of a sudden end. A server that is not ours does not ask."""
        told = {name: text for name, text in (("schema", self._schema), ("killed", self._killed)) if text}
        if not told:
            return
        message = signed(self._key, "schema") | told
        try:
            call: Any = self._channel.unary_unary(enrolment.path(enrolment.DESCRIBE))
            call(enrolment.encode(message), timeout=CALL_SECONDS)
            self._killed = ""
        except grpc.RpcError as error:
            raise_if_refused(error)
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise
            log.info("the server compares no names of columns or classes: %s", clean(error.details()))

    def _hold_open(self) -> None:
        """Make the call whose end tells each side that the connection, or the other side, is gone."""
        self._let_go()
        self.expelled.clear()
        message = signed(self._key, "stay") | {"session": self._session}
        stay: Any = self._channel.unary_stream(enrolment.path(enrolment.STAY))
        call = self._stay = stay(enrolment.encode(message), wait_for_ready=True)
        call.add_done_callback(self._on_end)

    def _on_end(self, call: Any) -> None:
        if call is not self._stay:
            return
        if call.code() is grpc.StatusCode.UNAVAILABLE:
            again = threading.Timer(RETURN_SECONDS, lambda: self._hold_open() if call is self._stay else None)
            again.daemon = True
            again.start()
        elif call.details() != enrolment.REPLACED:  # the next poll says so; joining again would throw it out
            self.expelled.set()

    def _let_go(self) -> None:
        call, self._stay = self._stay, None
        if call is not None:
            call.cancel()


def seconds_told(told: Any) -> float:
    """Return what a server wants in a header, 0 where that is no length of time; however long, a node polls again."""
    try:
        return min(max(0.0, float(told)), LONGEST_POLL_SECONDS) if told else 0.0
    except ValueError:
        return 0.0


def heartbeat_told(told: Any, usual: float) -> float:
    """Return how often a server wants to hear from this node; as before where that would flood it, or never come."""
    try:
        seconds = float(told)
    except (TypeError, ValueError):
        return usual
    return seconds if SHORTEST_HEARTBEAT <= seconds <= LONGEST_HEARTBEAT else usual


def raise_if_refused(error: grpc.RpcError) -> None:
    """Raise AccessError where the server said that it will never let this client in as it is."""
    if error.code() is not grpc.StatusCode.UNAUTHENTICATED:
        return
    if error.details() == enrolment.UNKNOWN:
        raise UnknownClient(f"{enrolment.UNKNOWN}.") from None
    if error.details() == enrolment.REVOKED:
        raise Revoked(enrolment.REVOKED) from None
    if error.details() == enrolment.REPLACED:
        raise AccessError(f"{error.details()}. It does not try again.") from None


def _bare(message: Message) -> Message:
    return remove_content_from_message(message) if message.has_content() else message
