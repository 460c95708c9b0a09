"""Flower's own Fleet and ServerAppIo services over a database file, in this process: they can fall at any instruction.

What outlasts SIGKILL is what was committed. So a fall is: the k-th transaction, or the k-th answer, never happens, and
what the process knew is forgotten. After each call of the run the clients do all that they can, before it is answered.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import grpc
from flwr.app import Message
from flwr.proto.fleet_pb2_grpc import add_FleetServicer_to_server
from flwr.proto.serverappio_pb2_grpc import add_ServerAppIoServicer_to_server
from flwr.server.superlink.fleet.grpc_rere.fleet_servicer import FleetServicer
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.supercore.constant import TaskType
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectIdNotPreregisteredError,
    ObjectUnavailableError,
    pull_and_inflate_object_from_tree,
)
from flwr.supercore.interceptors import create_serverappio_token_auth_server_interceptor
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supercore.sql_mixin import _current_session
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.grid import GrpcGrid
from flwr.superlink.servicer.serverappio.serverappio_servicer import ServerAppIoServicer

from fl_client.link.connection import Connection
from fl_server.superlink.database import LinkDatabase
from fl_server.superlink.fleet.reception import Reception

FEDERATION = "@none/default"
APPIO = "/flwr.proto.ServerAppIo/"


class Killed(BaseException):
    """What ends a call in the middle: nothing catches it."""


class Interceptor(grpc.ServerInterceptor):
    """Has `wrap` around each unary call."""

    def __init__(self, wrap):
        self._wrap = wrap

    def intercept_service(self, continuation, details):
        handler = continuation(details)
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: self._wrap(handler.unary_unary, request, context, details.method),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


class Link:
    """The services, the Grid of one run on them, and how often something could have fallen (`steps`)."""

    def __init__(self, path):
        self.objects = ObjectStoreFactory(str(path))
        self.states = LinkStateFactory(str(path), NoOpFederationManager(), self.objects)
        self.state, self.store = self.states.state(), self.objects.store()
        self.database = LinkDatabase(path)
        self.clients, self.steps, self.fatal, self.fell, self._only = [], 0, -1, "", ""
        self._lock = threading.RLock()
        for each in (self.state, self.store):
            each.session = self._counting(each.session)
        self._start_anew()
        self._servers = [self._serve(self._fleet), self._serve(self._appio)]
        self.fleet, appio = [f"127.0.0.1:{port}" for _, port in self._servers]
        self.run_id = self.state.create_run("", "", "", {}, FEDERATION, None, None, TaskType.SERVER_APP)
        task = self.state.get_run_info(run_ids=[self.run_id])[0].primary_task_id
        token = self.state.claim_task(task)
        assert self.state.activate_task(task)
        self.grid = GrpcGrid(appio, insecure=True, token=token)
        self.grid.set_run(Run.create_empty(self.run_id))
        self.grid._retry_invoker.wait_function = lambda seconds: None

    def client(self, answer):
        """Return a node that gives `answer(message)`."""
        self.clients.append(client := Client(self.fleet, answer))
        return client

    def close(self):
        for each in self.clients:
            each.close()
        if self.grid._channel is not None:
            self.grid.close()
        for server, _ in self._servers:
            server.stop(None)

    def fall_at(self, step, *, between_calls=False):
        """Fall at this step, counted from now; `between_calls` of the run only, or else at any transaction as well."""
        self.steps, self.fatal, self.fell, self._only = 0, step, "", APPIO if between_calls else ""

    # ---- falling

    def _step(self, where):
        with self._lock:
            self.steps += where.startswith(self._only)
            if self.steps == self.fatal and not self.fell:
                self.fell = where
                raise Killed

    def _counting(self, session):
        @contextmanager
        def counted():
            if _current_session.get() is None:
                self._step("transaction")
            with session() as open_:
                yield open_

        return counted

    def _start_anew(self):
        self._reception = Reception(self.states, self.objects)
        self.database.renew()

    def _survived(self, call, request, context, method, after):
        try:
            response = call(request, context)
            self._step(method)
            after(method)
            return response
        except Killed:
            self._start_anew()
            after(method)
            context.abort(grpc.StatusCode.UNAVAILABLE, "the SuperLink fell")

    def _let_clients_go_on(self, method):
        for client in self.clients:
            client.has_mail |= method.endswith("PushMessages")
        while sum(client.step() for client in self.clients):
            pass

    # ---- serving

    def _fleet(self, server):
        add_FleetServicer_to_server(FleetServicer(self.states, self.objects, False), server)

    def _appio(self, server):
        add_ServerAppIoServicer_to_server(ServerAppIoServicer(self.states, self.objects), server)

    def _serve(self, add):
        of_the_run = add == self._appio
        if of_the_run:
            inner = [create_serverappio_token_auth_server_interceptor(self.states.state)]
            lock, after = threading.Lock(), self._let_clients_go_on
        else:
            inner = [Interceptor(self._received)]
            lock, after = threading.Lock(), lambda method: None

        def outer(call, request, context, method):
            with lock:
                return self._survived(call, request, context, method, after)

        server = grpc.server(ThreadPoolExecutor(8), interceptors=[Interceptor(outer), *inner])
        add(server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        return server, port

    def _received(self, call, request, context, method):
        """Pass a call to the Reception of now."""
        handler = grpc.unary_unary_rpc_method_handler(call)
        details = type("Details", (), {"method": method})()
        return self._reception.intercept_service(lambda _: handler, details).unary_unary(request, context)


class Client:
    """A node that does one thing at a time, never waits, and tries again what failed because the SuperLink fell."""

    def __init__(self, address, answer):
        self.connection = Connection(address, heartbeat_seconds=1800.0)
        self.has_mail = False
        self._answer = answer
        self._held = None
        self._reply = None
        self.node = self.connection.join()

    def close(self):
        self.connection._channel.close()

    def step(self):
        """Do the next thing; False where there is nothing to do yet."""
        with suppress(grpc.RpcError, ObjectUnavailableError):
            return self._go_on()
        return False

    def _go_on(self):
        if self._reply is None and self._held is None:
            self._held = self.connection.poll() if self.has_mail else None
            self.has_mail = False
            if self._held is None:
                return False
        if self._reply is None:
            try:
                self._reply = self._answer(self._fetched())
            except ObjectIdNotPreregisteredError:  # the run has gone on without it
                self._held = None
                return True
        try:
            self.connection.send(self._reply, 0.0)
        except ObjectIdNotPreregisteredError:
            pass
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                raise
        self._held = self._reply = None
        return True

    def _fetched(self):
        head, tree = self._held
        run = head.metadata.run_id
        pull = make_pull_object_fn_protobuf(self.connection._stub.PullObject, self.connection._node, run)
        pull(tree.object_id)  # the last to come
        message = pull_and_inflate_object_from_tree(
            tree,
            pull,
            lambda identity: self.connection._note_fetched(run, identity),
            return_type=Message,
            max_tries_per_object=1,
            max_time=0.0,
        )
        message.metadata.__dict__["_message_id"] = head.metadata.message_id
        return message
