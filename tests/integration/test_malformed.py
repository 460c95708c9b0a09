"""Malformed Fleet messages to a live server, from a stranger, from a key that is not enrolled, and from one that is."""

import collections
import secrets
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from flwr.client.grpc_rere_client.node_auth_client_interceptor import NodeAuthClientInterceptor
from flwr.supercore.grpc import create_channel
from flwr.supercore.interceptors import RuntimeVersionClientInterceptor

from fl_client.link.connection import Connection, _Session
from fl_client.link.enrolment import enrol
from fl_common.settings.schema import Settings
from fl_common.trust import keys
from fl_common.trust.tokens import Token
from fl_server.store.runs import Run
from parterre.federation import LocalFederation
from tests.support.corpus import PREFIX, corpus

COUNT = 250  # by each of the three
SECONDS = 20.0
ANSWERED = {
    grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ABORTED, grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.RESOURCE_EXHAUSTED,
}  # fmt: skip


def channel_of(federation: LocalFederation, key: Any) -> grpc.Channel:
    """Return a channel that trusts the server, and signs its calls where there is a key."""
    authority = federation.access.files.ca.read_bytes()
    channel = create_channel(federation.addresses.fleet, insecure=False, root_certificates=authority)
    if key is None:
        return channel
    return grpc.intercept_channel(
        channel, RuntimeVersionClientInterceptor(component_name="SuperNode"),
        NodeAuthClientInterceptor(key, key.public_key()), _Session(secrets.token_hex(16)),
    )  # fmt: skip


def send(channel: grpc.Channel, messages: Any) -> "collections.Counter[grpc.StatusCode]":
    """Send raw requests; return how often each status came back."""
    came: collections.Counter[grpc.StatusCode] = collections.Counter()
    for method, request in messages:
        call = channel.unary_unary(f"{PREFIX}{method}", request_serializer=bytes, response_deserializer=bytes)
        try:
            call(request, timeout=SECONDS)
            came[grpc.StatusCode.OK] += 1
        except grpc.RpcError as error:
            came[error.code()] += 1
    return came


@pytest.mark.slow
def test_hundreds_of_malformed_messages_neither_break_a_server_nor_reach_a_run(tmp_path: Path) -> None:
    settings = Settings(rounds=400, min_clients=2, partitions=2, out=str(tmp_path), resume=True)
    run = Run.create(tmp_path, settings)
    with LocalFederation(tmp_path, clients=2) as federation, federation.control() as control:
        run_id = control.submit(settings).run_id
        followed = run.follow(lambda: bool(federation.tend()))
        next(event for event in followed if event["event"] == "round")  # both clients hold their slots by now
        superlink = psutil.Process(federation.superlink.process.pid)  # type: ignore[union-attr]
        enrolled, authority = keys.generate(), federation.access.files.ca.read_bytes()
        enrol(federation.addresses.fleet, Token.parse(federation.enrolment_token()), enrolled, authority)
        with Connection(federation.addresses.fleet, root_certificates=authority, key=enrolled) as known:
            node = known.join()
            known.leave()
        senders = {"a stranger": None, "a key that is not enrolled": keys.generate(), "an enrolled key": enrolled}
        send(channel_of(federation, enrolled), corpus(99, 50, node=node, run=run_id))  # what grows once has grown
        before = superlink.memory_info().rss
        answers = {
            who: send(channel_of(federation, key), corpus(number, COUNT, node=node, run=run_id))
            for number, (who, key) in enumerate(senders.items())
        }
        after = superlink.memory_info().rss
        rounds = len(run.rounds())
        assert superlink.is_running()
        going_on = (event for event in run.follow(lambda: bool(federation.tend())) if event["event"] == "round")
        while len(run.rounds()) < rounds + 3:
            next(going_on)
        events = run.events()
        control.stop(run_id)
    assert {status for came in answers.values() for status in came} <= ANSWERED, answers  # none hung, none was dropped
    assert not answers["a stranger"][grpc.StatusCode.OK], answers
    assert not answers["a key that is not enrolled"][grpc.StatusCode.OK], answers
    assert after <= 1.2 * before, (before, after)
    assert not [event for event in events if event["event"] in ("rejected", "repeat", "restarted", "failed")]
    assert all(event["replies"] == event["cohort"] == 2 for event in events if event["event"] == "round")
    print({who: dict(came) for who, came in answers.items()}, before >> 20, after >> 20)
