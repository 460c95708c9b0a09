"""Where Flower's SuperLink is told who may come in. Everything that is changed in Flower is changed here, in `install`.

Clients: Flower's node authentication stays as it is; before it stand a look at who is revoked, and after it the
sessions. Control: a bearer credential, checked by a plugin of the kind Flower has for accounts. TLS: certificates are
read again when they were renewed.
"""

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
from flwr.common import logger
from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID, PUBLIC_KEY_HEADER, TIMESTAMP_HEADER
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    DeactivateNodeRequest,
    RegisterNodeFleetRequest,
)
from flwr.server import app as superlink_app
from flwr.server.superlink.fleet.grpc_rere import node_auth_server_interceptor
from flwr.server.superlink.fleet.grpc_rere.node_auth_server_interceptor import NodeAuthServerInterceptor
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.supercore import sql_mixin
from flwr.supercore.auth.typing import AccountInfo
from flwr.supercore.utils import get_metadata_bytes, get_metadata_str
from flwr.superlink.auth_plugin import NoOpControlAuthzPlugin
from flwr.superlink.servicer.control import control_grpc

from fl_common.errors import ParterreError, StoreError
from fl_common.trust import enrolment, keys
from fl_server.access.certificates import read_public
from fl_server.access.client_registry import Registry
from fl_server.access.data_schemas import Schemas
from fl_server.access.enrolment import EnrolmentInterceptor, Enrolments, Failures
from fl_server.access.home_files import Access
from fl_server.processes.steady_clock import Steady
from fl_server.superlink import grpc_servers
from fl_server.superlink.database import LinkDatabase
from fl_server.superlink.execution.credential import CredentialPlugin
from fl_server.superlink.execution.run_names import NamedRuns
from fl_server.superlink.fleet import liveness, timestamps
from fl_server.superlink.fleet.departures import Departures
from fl_server.superlink.fleet.half_open_calls import BEFORE_ONE_IS_KNOWN, refused
from fl_server.superlink.fleet.heartbeats import Heartbeats
from fl_server.superlink.fleet.liveness import LastHeard, Sessions
from fl_server.superlink.fleet.polls import Polls
from fl_server.superlink.fleet.registry_sync import RegistrySync, shut_out
from fl_server.superlink.fleet.timestamps import Nearest

log = logging.getLogger(__name__)

MALFORMED = (ParterreError, ValueError, TypeError, AttributeError)  # what a stranger's metadata may raise


class NodeGate(NodeAuthServerInterceptor):
    """Flower's node authentication with what it lacks: revocation at once, keys enrolled elsewhere, and sessions.

    Without a registry (`--insecure`), any key may come, as in Flower.
    """

    def __init__(
        self,
        state_factory: LinkStateFactory,
        registry: Registry | None,
        sessions: Sessions,
        seen: LastHeard,
        beat: float,
        schemas: Schemas,
        nearest: Nearest,
    ) -> None:
        super().__init__(state_factory)
        self._nearest = nearest
        self._schemas = schemas
        self._registry = registry
        self._sessions = sessions
        self._seen = seen
        self._heartbeat_seconds = beat
        self._nodes: set[str] = set()  # clients whose keys are nodes, or were: what they send is verified all the same
        self._id_of = functools.lru_cache(maxsize=65_536)(keys.client_id)
        self._departures = Departures(state_factory.state())
        self._polls = Polls(state_factory.state(), sessions, seen)
        self._beats = Heartbeats(state_factory.state(), sessions, seen, beat)
        self._beats.start()

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """Refuse who is revoked or forgotten, and what is malformed; then authenticate as Flower does."""
        if not handler_call_details.method.startswith("/flwr.proto.Fleet/"):
            return continuation(handler_call_details)
        authenticate = functools.partial(self._authenticated, continuation, handler_call_details)
        try:
            key = get_metadata_bytes(handler_call_details.invocation_metadata, PUBLIC_KEY_HEADER)
            client = self._id_of(key) if key else ""
            if self._registry is not None and client and (why := shut_out(self._registry, client)):
                return refused(why)
            if client and key and not self._has_node(client, key, handler_call_details.method):
                return refused("Invalid node ID")  # as Flower says when it has read all of the call
            quick = (each.handler(client, handler_call_details, authenticate) for each in (self._polls, self._beats))
            return next(filter(None, quick), None) or authenticate()
        except StoreError:  # the registry cannot be read at the moment: who calls tries again
            raise
        except MALFORMED as error:
            return _malformed(error)

    def _has_node(self, client: str, key: bytes, method: str) -> bool:
        """Say whether a key is a node's, unless it only now asks to become one: strangers are not read."""
        if method in BEFORE_ONE_IS_KNOWN or client in self._nodes:
            return True
        if self.state_factory.state().get_node_id_by_public_key(key) is None:
            return False
        self._nodes.add(client)
        return True

    def _authenticated(self, continuation: Callable[[Any], Any], details: grpc.HandlerCallDetails) -> Any:
        try:
            self._nearest.to(get_metadata_str(details.invocation_metadata, TIMESTAMP_HEADER) or "")
            return super().intercept_service(continuation, details)
        except MALFORMED as error:
            return _malformed(error)

    def _wrap_method_handler(self, method_handler: Any, received_public_key: bytes) -> Any:
        flowers: Any = super()._wrap_method_handler(method_handler, received_public_key)
        client = self._id_of(received_public_key)

        def call(request: Any, context: grpc.ServicerContext) -> Any:
            session = get_metadata_str(context.invocation_metadata(), enrolment.SESSION_HEADER) or ""
            if isinstance(request, ActivateNodeRequest):
                if request.public_key != received_public_key:
                    context.abort(grpc.StatusCode.UNAUTHENTICATED, "the key in the request is not the one that signed")
                self._admit(client, received_public_key, context)
                if session:
                    return self._activate(client, session, request, context)
            elif session and not isinstance(request, RegisterNodeFleetRequest):
                if not self._sessions.is_current(client, session):
                    context.abort(grpc.StatusCode.UNAUTHENTICATED, enrolment.REPLACED)
                if isinstance(request, DeactivateNodeRequest):
                    self._sessions.left(client)
            if isinstance(request, DeactivateNodeRequest):
                self._note_goodbye(received_public_key, request.node_id)
            response = flowers.unary_unary(request, context)
            if self._registry is not None:
                self._seen.now(client)
            return response

        return grpc.unary_unary_rpc_method_handler(
            call,
            request_deserializer=method_handler.request_deserializer,
            response_serializer=method_handler.response_serializer,
        )

    def _activate(
        self, client: str, session: str, request: ActivateNodeRequest, context: grpc.ServicerContext
    ) -> ActivateNodeResponse:
        state = self.state_factory.state()
        node_id = state.get_node_id_by_public_key(request.public_key)
        if node_id is not None:
            self._note_schema(client, node_id, context)
        if node_id is None or not liveness.take_place(state, node_id, self._heartbeat_seconds):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, enrolment.UNKNOWN)
        self._polls.mailboxes.filled(node_id)  # what it never answered waits for it again
        self._departures.back(node_id)
        self._sessions.begin(client, session, node_id)
        self._seen.now(client)
        context.send_initial_metadata(((enrolment.HEARTBEAT_HEADER, f"{self._heartbeat_seconds:g}"),))
        return ActivateNodeResponse(node_id=node_id)

    def _note_goodbye(self, key: bytes, node_id: int) -> None:
        """Note that a node leaves, where it says so itself: Flower has not compared the two yet."""
        if self.state_factory.state().get_node_id_by_public_key(key) == node_id:
            self._departures.left(node_id)

    def _note_schema(self, client: str, node_id: int, context: grpc.ServicerContext) -> None:
        """Note what a client's data are called before it is there: no round begins with it before that is known."""
        try:
            self._schemas.settle(client, node_id)
        except StoreError as error:
            log.warning("client %s cannot join yet: %s", client, error)
            context.abort(grpc.StatusCode.UNAVAILABLE, "the server cannot note what this client's data are called")

    def _admit(self, client: str, key: bytes, context: grpc.ServicerContext) -> None:
        """Make an enrolled key a node of Flower's, and a node registered by Flower's tools a client of ours."""
        if self._registry is None:
            return
        state = self.state_factory.state()
        node_id = state.get_node_id_by_public_key(key)
        known = self._registry.client(client)
        if node_id is None and known is not None and known.public_key == key:
            try:
                node_id = state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, key, 0)
            except ValueError:  # it was unregistered by Flower's tools, which is for good
                context.abort(grpc.StatusCode.UNAUTHENTICATED, enrolment.REVOKED)
        if node_id is None:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, enrolment.UNKNOWN)
        if known is None:
            known = self._registry.add_key(key, {})
        if known.node != node_id:
            self._registry.settle(client, node_id)


def _malformed(error: Exception) -> Any:
    log.info("malformed authentication metadata: %s", type(error).__name__)
    return refused("Malformed authentication metadata")


def install(access: Access, database: Path | None, steady: Steady) -> None:
    """Put all this into Flower, in a process that is about to run its SuperLink over the file `database`."""
    nearest = timestamps.install(steady)
    sessions, seen = Sessions(), LastHeard()
    registry = None if access.insecure else Registry(access.home)
    beat = liveness.interval(access.lost_after_seconds)
    keep_values_out_of_errors()
    liveness.allow_short_intervals()
    first: list[grpc.ServerInterceptor] = []  # of the Fleet server: filled when Flower makes its gate

    def node_gate(state_factory: LinkStateFactory) -> NodeGate:
        schemas = Schemas(access.home)
        if registry is not None:
            RegistrySync(registry, sessions, seen, state_factory, schemas, access.forget_after_seconds).start()
        first.append(EnrolmentInterceptor(_desk(access, registry, sessions, state_factory, schemas, steady)))
        return NodeGate(state_factory, registry, sessions, seen, beat, schemas, nearest)

    _replace(superlink_app, "NodeAuthServerInterceptor", node_gate)
    _replace(node_auth_server_interceptor, "_unary_unary_rpc_terminator", refused)

    fleet = functools.partial(grpc_servers.make, access, first, sessions.close_all)  # open calls would hold up its end
    names = [NamedRuns(LinkDatabase(database))] if database is not None else []
    control = functools.partial(grpc_servers.make, access, (), _nothing, last=names)
    _replace(superlink_app, "generic_create_grpc_server", fleet)
    _replace(control_grpc, "generic_create_grpc_server", control)
    if not access.insecure:
        account = AccountInfo(flwr_aid=NOOP_FLWR_AID, account_name=NOOP_ACCOUNT_NAME)
        plugin = CredentialPlugin(access.credential, account)
        plugins = (plugin, NoOpControlAuthzPlugin(Path(), True))
        _replace(superlink_app, "_load_control_auth_plugins", lambda *_: plugins)


def keep_values_out_of_errors() -> None:
    """Have no error of the database quote what was asked for: tokens of runs are among it, and errors are logged."""
    engine = functools.partial(vars(sql_mixin)["create_engine"], hide_parameters=True)

    def log_without_values(level: int, message: object, *arguments: object) -> None:
        if isinstance(message, dict):
            message = {key: value for key, value in message.items() if key not in ("data", "params")}
        logger.log(level, message, *arguments)

    _replace(sql_mixin, "create_engine", engine)
    _replace(sql_mixin, "log", log_without_values)


def _nothing() -> None:
    pass


def _replace(module: ModuleType, name: str, value: object) -> None:
    """Replace what a module of Flower's calls by a name that it must have: a Flower that has it no more is refused."""
    getattr(module, name)
    setattr(module, name, value)


def _desk(
    access: Access,
    registry: Registry | None,
    sessions: Sessions,
    state_factory: LinkStateFactory,
    schemas: Schemas,
    steady: Steady,
) -> Enrolments:
    def is_node(key: bytes) -> bool:
        return state_factory.state().get_node_id_by_public_key(key) is not None

    def lost(key: bytes) -> None:
        state = state_factory.state()
        node_id = state.get_node_id_by_public_key(key)
        if node_id is not None and state.deactivate_node(node_id):
            log.warning("the connection of node %d ended without a goodbye; it counts as lost", node_id)

    authority = b"" if access.insecure else read_public(access.files.ca)
    return Enrolments(authority, registry, sessions, Failures(), is_node, lost, schemas, steady.timestamp)
