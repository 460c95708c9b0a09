"""Who gets in, against a real SuperLink with TLS on: enrolment, revocation, coming back, and all that is refused."""

import datetime
import ipaddress
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from flwr.app import Message, RecordDict

from fl_client.link.connection import Connection
from fl_client.link.enrolment import enrol, fetch_authority, signed
from fl_common.errors import AccessError, NetworkError, Revoked, UnknownClient
from fl_common.network.tls_handshake import diagnose
from fl_common.settings.schema import Settings
from fl_common.trust import enrolment, keys, secret_files
from fl_common.trust.tokens import Token
from fl_server.access import certificates, home_files, own_certificates
from fl_server.access.client_registry import Registry
from fl_server.access.enrolment import MOST_FAILURES
from fl_server.processes.listening import Addresses, free_ports, known_as
from fl_server.rounds.exchange import Stream
from fl_server.superlink.execution.control import Control
from fl_server.superlink.fleet.polls import FEW, POLLS_PER_SECOND
from fl_server.superlink.fleet.reception import OBJECT_BYTES
from tests.support.driven_server import Server, grid_for_a_module, server_for_a_module, serving, until
from tests.support.proxies import proxy


class Secure(Server):
    """A server whose front door is the test's: tokens, addresses, connections."""

    def __init__(self, directory, **entry):
        super().__init__(directory, insecure=False, lost_after_seconds=4.0, **{"names": ["fl.example"]} | entry)
        self.entry = self.superlink.access
        self.registry = Registry(directory)
        self.fleet = self.addresses.fleet
        self.authority = self.entry.files.ca.read_bytes()

    def token(self, *, uses=1, seconds=60.0, **labels):
        return home_files.enrolment_token(self.entry, uses=uses, seconds=seconds, labels=labels)

    def enrolled(self, **labels):
        key = keys.generate()
        enrol(self.fleet, self.token(**labels), key, self.authority)
        return key

    def connection(self, key, **options):
        return Connection(self.fleet, root_certificates=self.authority, key=key, **options)

    def node_of(self, key):
        return self.registry.client(client_of(key)).node


def client_of(key):
    return keys.client_id(keys.public_pem(key.public_key()))


server = server_for_a_module(Secure)
grid = grid_for_a_module()


def echo(message, context):
    return Message(message.content, reply_to=message)


def ask(grid, *nodes):
    messages = [Message(RecordDict(), dst_node_id=node, message_type="train") for node in nodes]
    return {answer.node: answer.reply for answer in Stream(grid, messages, deadline=60.0)}


def forge(address, message, authority, method=enrolment.ENROL):
    """Call the enrolment service as anybody could, and return the status that comes back."""
    with grpc.secure_channel(address, grpc.ssl_channel_credentials(authority)) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(enrolment.path(method))(message, timeout=20)
        return caught.value.code(), caught.value.details()


# In


def test_a_client_that_has_only_an_address_and_a_token_gets_in_and_trains(server, grid):
    token, key = server.token(site="berlin"), keys.generate()
    authority = fetch_authority(server.fleet, token.fingerprint)
    assert authority == server.authority
    assert enrol(server.fleet, token, key, authority) == client_of(key)
    with serving(lambda: server.connection(key), echo):
        node = until(lambda: server.node_of(key))
        until(lambda: node in grid.get_node_ids())
        assert ask(grid, node)[node].has_content()
        client = until(lambda: seen if (seen := server.registry.client(client_of(key))).seen else None)
        assert client.labels == {"site": "berlin"}
    assert node not in grid.get_node_ids()


def test_what_a_client_tells_of_the_one_before_it_that_was_killed_is_noted_and_steers_no_terminal(server, grid):
    key = server.enrolled()
    with serving(lambda: server.connection(key, killed="out of memory: \x1b[31mlimit 9 MiB" + "x" * 999), echo):
        client = until(lambda: seen if (seen := server.registry.client(client_of(key))).node else None)
    assert client.killed.startswith("out of memory: \\x1b[31mlimit 9 MiB")
    assert len(client.killed) < 220
    assert client.killed_at


def test_two_clients_and_one_use_one_gets_in(server):
    token = server.token()

    def attempt(key):
        try:
            return bool(enrol(server.fleet, token, key, server.authority))
        except AccessError:
            return False

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(attempt, [keys.generate() for _ in range(8)]))
    assert outcomes.count(True) == 1


def test_a_key_registered_by_hand_needs_no_token(server):
    key = keys.generate()
    server.registry.add_key(keys.public_pem(key.public_key()), {"site": "bonn"})
    with server.connection(key) as connection:
        assert connection.join() == server.node_of(key)
        connection.leave()


def test_a_client_gets_in_through_a_proxy(server, monkeypatch):
    address, token, key = f"fl.example:{server.fleet.rpartition(':')[2]}", server.token(), keys.generate()
    with proxy() as through:
        monkeypatch.setenv("no_proxy", "nothing.example")
        monkeypatch.setenv("https_proxy", through.url)
        authority = fetch_authority(address, token.fingerprint)
        assert diagnose(address, authority) == ""
        assert enrol(address, token, key, authority) == client_of(key)
        with Connection(address, root_certificates=authority, key=key) as connection:
            assert connection.join() == server.node_of(key)
            connection.leave()
    assert len(through.asked) == 5  # the certificate, the CA, the diagnosis, the enrolment, the node
    assert {request.split()[1] for request in through.asked} == {address}


def test_a_server_on_ipv6_is_reached_by_it_and_by_ipv4_and_prints_neither_for_all(tmp_path):
    ports = free_ports(3)
    addresses = Addresses.of("::", ports[0], "::1", ports[1], ports[2])
    assert addresses == Addresses(f"[::]:{ports[0]}", f"[::1]:{ports[1]}", f"127.0.0.1:{ports[2]}")
    server = Secure(tmp_path, addresses=addresses)
    try:
        server.start()
        for fleet in (f"[::1]:{ports[0]}", f"127.0.0.1:{ports[0]}", f"localhost:{ports[0]}"):
            token, key = server.token(), keys.generate()
            authority = fetch_authority(fleet, token.fingerprint)
            enrol(fleet, token, key, authority)
            with Connection(fleet, root_certificates=authority, key=key) as connection:
                assert connection.join()
                connection.leave()
        with (
            home_files.control(server.entry, addresses.control) as control,
            pytest.raises(NetworkError, match="refused"),
        ):
            control.stop(1)
        assert known_as(addresses.fleet, server.entry.names) == f"fl.example:{ports[0]}"
    finally:
        server.stop()


# Not in


@pytest.mark.parametrize("which", ["control", "appio"])
def test_a_client_that_was_given_another_port_of_the_server_ends_and_says_which_it_needs(server, which):
    address, token = getattr(server.addresses, which), server.token()
    with pytest.raises(AccessError, match="Is it the Fleet address of an `fl server`"):
        fetch_authority(address, token.fingerprint)
    authority = server.authority if which == "control" else server.superlink.root
    connect = lambda: Connection(address, root_certificates=authority, key=keys.generate())  # noqa: E731
    with serving(connect, echo) as ended:
        assert "Is it its Fleet address" in str(until(lambda: ended)[0])


@pytest.mark.parametrize("which", ["fleet", "appio"])
def test_a_run_that_was_given_another_port_of_the_server_ends_and_says_which_it_needs(server, which):
    address = getattr(server.addresses, which)
    with home_files.control(server.entry, address) as control, pytest.raises(NetworkError) as caught:
        control.submit(Settings())
    assert ("Control API" if which == "fleet" else "another CA") in str(caught.value)
    assert "9093" in str(caught.value)


def test_who_uses_a_name_that_the_certificate_has_not_is_told_at_once_which_it_has(server, monkeypatch):
    fleet, control = (f"other.example:{each.rpartition(':')[2]}" for each in (server.fleet, server.addresses.control))
    with proxy() as through:
        monkeypatch.setenv("https_proxy", through.url)
        with home_files.control(server.entry, control) as runs, pytest.raises(NetworkError) as caught:
            runs.submit(Settings())
        said = [str(caught.value), diagnose(fleet, server.authority)]
    assert all("other.example" in text and "it is for fl.example, localhost, 127.0.0.1, ::1." in text for text in said)


def test_a_key_that_is_not_enrolled_is_told_so(server):
    with server.connection(keys.generate()) as connection, pytest.raises(UnknownClient, match="does not know"):
        connection.join()


def test_an_expired_a_used_up_a_revoked_and_a_tampered_token_are_refused(server):
    expired = server.token(seconds=0.001)
    used = server.token()
    enrol(server.fleet, used, keys.generate(), server.authority)
    revoked = server.token()
    server.registry.revoke_token(revoked.identity)
    good = server.token()
    tampered = Token(good.identity, bytes(reversed(good.secret)), good.fingerprint)
    for token, why in ((expired, "expired"), (used, "used up"), (revoked, "not valid"), (tampered, "not valid")):
        with pytest.raises(AccessError, match=why) as caught:
            enrol(server.fleet, token, keys.generate(), server.authority)
        assert token.text.split(".")[2] not in str(caught.value)
    enrol(server.fleet, good, keys.generate(), server.authority)  # the attempts took no use of it


def test_a_token_shown_with_somebody_elses_key_is_refused(server):
    token, mine, theirs = server.token(), keys.generate(), keys.generate()
    message = {"token": token.text} | signed(mine, token.identity)
    message["public_key"] = keys.public_pem(theirs.public_key()).decode()
    code, why = forge(server.fleet, enrolment.encode(message), server.authority)
    assert (code, "possession" in why) == (grpc.StatusCode.PERMISSION_DENIED, True)
    assert server.registry.client(client_of(theirs)) is None


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"token": 3}', b"\xff" * 100, b"x" * 20_000])
def test_a_malformed_request_is_refused(server, content):
    assert forge(server.fleet, content, server.authority)[0] is grpc.StatusCode.PERMISSION_DENIED


def test_a_server_with_another_ca_is_not_shown_the_token(server):
    token = Token(**(vars(server.token()) | {"fingerprint": "00" * 32}))
    with pytest.raises(AccessError, match="not the one that the enrolment token is for"):
        fetch_authority(server.fleet, token.fingerprint)


def test_a_wrong_ca_and_plaintext_are_said_to_be_what_they_are(server, tmp_path):
    others = own_certificates.init(tmp_path, ["localhost"]).ca.read_bytes()
    assert "certificate" in diagnose(server.fleet, others)
    assert "speaks TLS" in diagnose(server.fleet, None)
    assert diagnose(server.fleet, server.authority) == ""
    with Connection(server.fleet, root_certificates=others, key=keys.generate()) as connection:
        with pytest.raises(grpc.RpcError) as caught:
            connection.join()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "cannot be verified" in connection.diagnosis()


def test_a_server_under_another_name_than_its_certificate_has_is_refused(tmp_path):
    files = own_certificates.init(tmp_path, ["elsewhere.example"])
    impostor = grpc.server(ThreadPoolExecutor(1))
    port = impostor.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([files.pair()]))
    impostor.start()
    try:
        ca = files.ca.read_bytes()
        assert "not for that name: it is for elsewhere.example." in diagnose(f"127.0.0.1:{port}", ca)
        with Connection(f"127.0.0.1:{port}", root_certificates=ca, key=keys.generate()) as connection:
            with pytest.raises(grpc.RpcError) as caught:
                connection.join()
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    finally:
        impostor.stop(None).wait()


def test_a_plaintext_client_gets_nothing_from_a_server_with_tls(server):
    with Connection(server.fleet) as connection:
        with pytest.raises(grpc.RpcError) as caught:
            connection.join()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "told not to (--insecure)" in connection.diagnosis()


def test_flowers_own_door_is_shut_for_keys_that_nobody_registered(server):
    from flwr.proto.fleet_pb2 import RegisterNodeFleetRequest

    key = keys.generate()
    with server.connection(key) as connection:
        request = RegisterNodeFleetRequest(public_key=keys.public_pem(key.public_key()))
        with pytest.raises(grpc.RpcError) as caught:
            connection._stub.RegisterNode(request)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_one_client_cannot_speak_for_another(server):
    from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest
    from flwr.proto.node_pb2 import Node as NodeProto

    mine, theirs = server.enrolled(), server.enrolled()
    with server.connection(mine) as me, server.connection(theirs) as them:
        me.join()
        theirs_node = them.join()
        for call, request in (
            (me._stub.PullMessages, PullMessagesRequest(node=NodeProto(node_id=theirs_node))),
            (me._stub.ActivateNode, ActivateNodeRequest(public_key=them._public_key, heartbeat_interval=10)),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call(request)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        me.leave()
        them.leave()


def test_calls_with_malformed_signatures_are_refused_and_the_server_lives_on(server):
    from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse

    good = keys.public_pem(server.enrolled().public_key())
    now = datetime.datetime.now(datetime.UTC).isoformat()
    for key, time, signature in (
        (b"no key", now, b"x"),
        (good, now, b"no signature"),
        (good, "no time", b"x"),
        (good, "2020-01-01T00:00:00", b"x"),
    ):
        metadata = (
            ("flwr-public-key-bin", key), ("flwr-timestamp", time), ("flwr-signature-bin", signature)
        )  # fmt: skip
        with grpc.secure_channel(server.fleet, grpc.ssl_channel_credentials(server.authority)) as channel:
            call = channel.unary_unary(
                "/flwr.proto.Fleet/PullMessages",
                request_serializer=PullMessagesRequest.SerializeToString,
                response_deserializer=PullMessagesResponse.FromString,
            )
            with pytest.raises(grpc.RpcError) as caught:
                call(PullMessagesRequest(), metadata=metadata, timeout=20)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert server.superlink.alive


def test_a_message_of_more_bytes_than_the_server_takes_is_refused_before_it_is_read(server):
    from flwr.proto.message_pb2 import PushObjectRequest
    from flwr.proto.node_pb2 import Node as NodeProto

    with server.connection(server.enrolled()) as connection:
        node = NodeProto(node_id=connection.join())
        request = PushObjectRequest(node=node, run_id=1, object_id="x", object_content=bytes(OBJECT_BYTES + 1))
        with pytest.raises(grpc.RpcError) as caught:
            connection._stub.PushObject(request)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert connection.beat()
        connection.leave()


def test_a_session_without_a_signature_is_told_that_nothing_waits_and_is_given_no_message(server, grid):
    from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse
    from flwr.proto.node_pb2 import Node as NodeProto

    key = server.enrolled()
    now = datetime.datetime.now(datetime.UTC).isoformat()
    with (
        server.connection(key) as connection,
        grpc.secure_channel(server.fleet, grpc.ssl_channel_credentials(server.authority)) as channel,
    ):
        request = PullMessagesRequest(node=NodeProto(node_id=connection.join()))
        unsigned = channel.unary_unary(
            "/flwr.proto.Fleet/PullMessages",
            request_serializer=PullMessagesRequest.SerializeToString,
            response_deserializer=PullMessagesResponse.FromString,
        )

        def pull(session):
            metadata = (
                ("flwr-public-key-bin", connection._public_key), ("flwr-timestamp", now), ("flwr-signature-bin", b"x"),
                (enrolment.SESSION_HEADER, session),
            )  # fmt: skip
            return unsigned(request, metadata=metadata, timeout=20)

        assert connection.poll() is None
        assert not pull(connection._session).messages_list
        answers = Stream(
            grid, [Message(RecordDict(), dst_node_id=connection.node_id, message_type="train")], deadline=60
        )
        for session in (connection._session, "another", ""):
            with pytest.raises(grpc.RpcError) as caught:
                pull(session)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        message = connection.fetch(connection.poll())  # it waits for who can sign
        connection.send(Message(message.content, reply_to=message), 0.1)
        assert next(answers).reply.has_content()
        connection.leave()


def test_nodes_are_told_to_poll_less_often_where_they_are_many(server):
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connection(server.enrolled())) for _ in range(FEW + 1)]
        for connection in connections:
            connection.join()
        until(lambda: connections[0].poll() is None and connections[0].poll_seconds)
        assert connections[0].poll_seconds >= FEW / POLLS_PER_SECOND
        for connection in connections[1:]:
            with suppress(grpc.RpcError):  # they send no heartbeats: on a slow machine Flower has counted them out
                connection.leave()
        until(lambda: connections[0].poll() is None and not connections[0].poll_seconds)


# Out


def test_who_is_revoked_is_cut_off_at_once_and_for_good(server, grid):
    key = server.enrolled()
    with serving(lambda: server.connection(key), echo) as ended:
        node = until(lambda: server.node_of(key))
        until(lambda: node in grid.get_node_ids())
        server.registry.revoke(client_of(key))
        until(lambda: ended)
        until(lambda: node not in grid.get_node_ids())
    assert "was revoked" in str(ended[0])
    with server.connection(key) as connection, pytest.raises(Revoked, match="was revoked"):
        connection.join()
    with pytest.raises(Revoked, match="was revoked"):
        enrol(server.fleet, server.token(), key, server.authority)


def test_an_open_call_ends_when_its_client_is_revoked(server):
    key = server.enrolled()
    with server.connection(key) as connection:
        connection.join()
        server.registry.revoke(client_of(key))
        assert connection.expelled.wait(30)
        with pytest.raises(grpc.RpcError) as caught:
            connection.poll()
        assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNAUTHENTICATED, enrolment.REVOKED)


# Back


def test_who_comes_back_without_a_goodbye_takes_its_place_at_once_with_its_message(server, grid):
    key = server.enrolled()
    lost = server.connection(key)
    node = lost.join()
    answers = Stream(grid, [Message(RecordDict(), dst_node_id=node, message_type="train")], deadline=60.0)
    assert lost.fetch(until(lost.poll)).metadata.message_type == "train"
    with server.connection(key) as back:  # as after SIGKILL: the old session is simply not heard of any more
        assert back.join() == node
        message = back.fetch(until(back.poll))
        back.send(Message(message.content, reply_to=message), 0.1)
        assert next(answers).reply.has_content()
        with pytest.raises(grpc.RpcError) as caught:
            lost.poll()
        assert caught.value.details() == enrolment.REPLACED
        back.leave()
    lost.__exit__(None, None, None)


def test_an_older_process_under_the_same_key_ends_and_says_why(server):
    key = server.enrolled()
    with serving(lambda: server.connection(key), echo) as ended:
        until(lambda: server.node_of(key))
        with server.connection(key) as newer:
            until(lambda: newer.join())
            until(lambda: ended)
            assert newer.beat()
            newer.leave()
    assert "another process has joined under this client's key" in str(ended[0])


def test_an_older_process_whose_open_call_is_refused_does_not_join_again(server):
    key = server.enrolled()
    with server.connection(key) as older, server.connection(key) as newer:
        node = older.join()
        assert newer.join() == node
        older._hold_open()  # as after a break, or where the call comes later than the newer process
        call = until(lambda: older._stay)
        until(call.done)
        assert call.details() == enrolment.REPLACED
        assert not older.expelled.is_set()
        with pytest.raises(grpc.RpcError) as caught:
            older.poll()
        assert caught.value.details() == enrolment.REPLACED
        newer.leave()


def test_a_connection_that_ends_without_a_goodbye_counts_the_node_out_long_before_its_heartbeats(server, grid):
    key = server.enrolled()
    connection = server.connection(key)
    node = connection.join()
    until(lambda: node in grid.get_node_ids())
    connection._channel.close()  # what the operating system does for a process that is killed
    until(lambda: node not in grid.get_node_ids())
    assert server.superlink.alive


def test_the_server_says_how_often_it_wants_to_hear_from_a_node(server):
    with server.connection(server.enrolled()) as connection:
        connection.join()
        assert connection.heartbeat_seconds == 2.0  # half of lost_after_seconds
        assert connection.beat()
        connection.leave()


@pytest.mark.slow
def test_a_client_keeps_its_node_id_over_restarts_of_the_server_and_the_loss_of_its_database(server):
    key = server.enrolled()
    with server.connection(key) as connection:
        node = connection.join()
        server.kill()
        server.start()
        until(lambda: joined(connection))
        assert connection.node_id == node
        server.kill()
        server.forget()
        server.start()
        until(lambda: joined(connection))  # enrolled it still is, though Flower has forgotten its node
        assert server.node_of(key) == connection.node_id != node
        connection.leave()


def test_who_is_forgotten_is_out_until_it_enrols_anew(server, grid):
    key = server.enrolled(site="berlin")
    with serving(lambda: server.connection(key), echo) as ended:
        node = until(lambda: server.node_of(key))
        until(lambda: node in grid.get_node_ids())
        server.registry.forget(client_of(key))
        until(lambda: ended)
        until(lambda: node not in grid.get_node_ids())
    assert "does not know this client's key" in str(ended[0])
    with server.connection(key) as connection, pytest.raises(UnknownClient):
        connection.join()
    enrol(server.fleet, server.token(site="bonn"), key, server.authority)
    with server.connection(key) as connection:
        assert connection.join() == node
        assert server.registry.client(client_of(key)).labels == {"site": "bonn"}
        connection.leave()


def joined(connection):
    try:
        return connection.join()
    except grpc.RpcError:
        return 0


# Control


def test_control_wants_its_credential(server):
    address, root = server.addresses.control, server.authority
    server.entry.credential.chmod(0o600)
    good = server.entry.credential.read_text().strip()
    with (
        Control(address, root_certificates=root, credential=good) as control,
        pytest.raises(NetworkError, match="Run ID not found"),
    ):
        control.status(1)
    for bad in (None, "", "wrong", good[:-1], good + "x"):
        with (
            Control(address, root_certificates=root, credential=bad) as control,
            pytest.raises(NetworkError, match="refused the credential of Control") as caught,
        ):
            control.status(1)
        assert good not in str(caught.value)
    with Control(address, credential=good) as control, pytest.raises(NetworkError):
        control.status(1)  # in plaintext the credential is not even sent


def test_a_credential_that_others_can_read_is_refused(server):
    server.entry.credential.chmod(0o644)
    try:
        with pytest.raises(home_files.SecretError, match="can be read by others"):
            home_files.control(server.entry, server.addresses.control)
    finally:
        server.entry.credential.chmod(0o600)


# Certificates


def test_a_renewed_certificate_is_used_without_a_restart(server):
    before = certificates.describe(server.entry.files.certificate)
    own_certificates.issue(server.entry.files, list(before.names), days=1)
    fresh = certificates.describe(server.entry.files.certificate)
    assert fresh.serial != before.serial
    import ssl

    def shown():
        port = int(server.fleet.rpartition(":")[2])
        return ssl.get_server_certificate(("127.0.0.1", port)).encode()

    until(lambda: shown() == server.entry.files.certificate.read_bytes())
    with server.connection(server.enrolled()) as connection:
        assert connection.join()
        connection.leave()


def issued(name, issuer=None, *, is_ca, names=()):
    """A certificate and its RSA key, as a company's CA would make them; signed by `issuer`, or by itself."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    by, signer = (issuer[0].subject, issuer[1]) if issuer else (subject, key)
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(
        by, subject, key.public_key(), 7 + len(name), now, now + datetime.timedelta(days=9)
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(signer, hashes.SHA256()), key


def test_a_server_with_a_companys_certificate_and_its_chain_lets_clients_in(tmp_path):
    root = issued("root", is_ca=True)
    between = issued("between", root, is_ca=True)
    leaf, key = issued("leaf", between, is_ca=False, names=[x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    pem = serialization.Encoding.PEM
    ca, chain, secret = (tmp_path / name for name in ("ca.pem", "fullchain.pem", "key.pem"))
    ca.write_bytes(root[0].public_bytes(pem))
    chain.write_bytes(leaf.public_bytes(pem) + between[0].public_bytes(pem))
    secret_files.write(
        secret,
        key.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()),
    )
    server = Secure(tmp_path / "home", files=home_files.given(chain, secret, ca))
    try:
        server.start()
        token = server.token()
        assert fetch_authority(server.fleet, token.fingerprint) == ca.read_bytes()
        with server.connection(server.enrolled()) as connection:
            assert connection.join()
            connection.leave()
    finally:
        server.stop()


# Too often


def test_a_stranger_who_fails_too_often_is_not_looked_at_and_keeps_no_one_else_out(server):
    strangers = Token.new(server.token().fingerprint)
    refused = [forge(server.fleet, b"{}", server.authority)[0] for _ in range(MOST_FAILURES)]
    assert set(refused) <= {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert forge(server.fleet, b"{}", server.authority)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(AccessError, match="wait a minute"):
        enrol(server.fleet, strangers, keys.generate(), server.authority)
    assert enrol(server.fleet, server.token(), keys.generate(), server.authority)  # from the same address
    with pytest.raises(AccessError, match="expired"):  # and who has a token is told what is wrong with it
        enrol(server.fleet, server.token(seconds=0.001), keys.generate(), server.authority)
