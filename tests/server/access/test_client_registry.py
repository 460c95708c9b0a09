"""The registry: who was let in, by which token, and for how long it lets anybody in."""

import sqlite3
import threading
from contextlib import closing

import pytest

from fl_common.errors import AccessError, StoreError
from fl_common.settings.schema import Settings
from fl_common.trust import keys
from fl_common.trust.tokens import Token
from fl_server.access import client_registry as registry_
from fl_server.access.client_registry import FILE, Registry
from fl_server.rounds.clients import node_labels as labels
from fl_server.rounds.clients.leases import Leases
from fl_server.rounds.clients.roster import Roster
from fl_server.rounds.clock import Clock as WallClock
from fl_server.store.run_directories import HOME_VARIABLE

FINGERPRINT = "00" * 32


def public():
    return keys.public_pem(keys.generate().public_key())


class Nodes:
    """A grid of two nodes that are there."""

    def get_node_ids(self):
        return [7, 8]


class Clock:
    now = 1_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def registry(tmp_path, clock):
    registry = Registry(tmp_path, clock=clock)
    yield registry
    registry.close()


def token_of(registry, *, uses=1, seconds=60.0, **labels):
    token = Token.new(FINGERPRINT)
    registry.add_token(token, uses=uses, seconds=seconds, labels=labels)
    return token


def test_a_token_lets_in_as_many_as_it_is_for_with_its_labels(registry):
    token = token_of(registry, uses=2, site="berlin")
    first, second = registry.admit(token, public()), registry.admit(token, public())
    assert first.labels == second.labels == {"site": "berlin"}
    assert first.identity != second.identity
    with pytest.raises(AccessError, match="used up"):
        registry.admit(token, public())
    assert [each.state(1_000.0) for each in registry.tokens()] == ["used up"]


def test_a_key_that_is_in_already_counts_no_use(registry):
    token, key = token_of(registry), public()
    assert registry.admit(token, key).identity == registry.admit(token, key).identity
    assert registry.tokens()[0].used == 1


def test_a_token_expires(registry, clock):
    token = token_of(registry, seconds=60.0)
    clock.now += 60.0
    with pytest.raises(AccessError, match="expired"):
        registry.admit(token, public())
    assert registry.tokens()[0].state(clock.now) == "expired"


def test_unknown_wrong_and_revoked_tokens_get_one_answer(registry):
    token = token_of(registry)
    forged = Token(token.identity, bytes(32), FINGERPRINT)
    revoked = token_of(registry)
    registry.revoke_token(revoked.identity)
    said = set()
    for bad in (Token.new(FINGERPRINT), forged, revoked):
        with pytest.raises(AccessError) as caught:
            registry.admit(bad, public())
        said.add(str(caught.value))
    assert said == {registry_.NOT_VALID}
    registry.admit(token, public())


def test_the_last_use_has_one_taker(registry, tmp_path):
    token, outcomes = token_of(registry, uses=3), []
    start = threading.Barrier(12)

    def take():
        own = Registry(tmp_path, clock=Clock())  # as another process would
        start.wait()
        try:
            outcomes.append(own.admit(token, public()).identity)
        except AccessError:
            outcomes.append("")
        own.close()

    threads = [threading.Thread(target=take) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([outcome for outcome in outcomes if outcome]) == 3
    assert registry.tokens()[0].used == 3
    assert len(registry.clients()) == 3


def test_who_is_revoked_stays_out_whatever_token_it_shows(registry):
    token, key = token_of(registry, uses=5), public()
    client = registry.admit(token, key)
    assert registry.revoked() == frozenset()
    registry.revoke(client.identity)
    assert registry.revoked() == {client.identity}
    for again in (lambda: registry.admit(token, key), lambda: registry.add_key(key, {})):
        with pytest.raises(AccessError, match="was revoked"):
            again()


def test_who_is_forgotten_needs_a_token_again_and_is_a_new_client_then(registry, clock):
    first, second, key = token_of(registry, site="berlin"), token_of(registry, site="bonn"), public()
    client = registry.admit(first, key)
    registry.forget(client.identity)
    assert (registry.clients(), registry.forgotten()) == ([], {client.identity})
    assert registry.public_key(client.identity) == key
    with pytest.raises(AccessError, match="used up"):
        registry.admit(first, key)
    clock.now += 5
    again = registry.admit(second, key)
    assert (again.labels, again.since) == ({"site": "bonn"}, clock.now)
    assert registry.forgotten() == frozenset()
    registry.forget("nobody")


def test_who_is_revoked_cannot_be_forgotten(registry):
    client = registry.add_key(public(), {})
    registry.revoke(client.identity)
    with pytest.raises(StoreError, match="what keeps its key out"):
        registry.forget(client.identity)
    assert registry.revoked() == {client.identity}


def test_whether_a_token_was_made_here_is_known_of_good_and_bad_ones(registry, clock):
    token = token_of(registry, seconds=1.0)
    assert registry.knows(token)
    clock.now += 2
    assert registry.knows(token)
    assert not registry.knows(Token(token.identity, bytes(32), FINGERPRINT))
    assert not registry.knows(Token.new(FINGERPRINT))


def test_a_revocation_by_another_process_is_seen_at_once(registry, tmp_path):
    client = registry.add_key(public(), {})
    assert registry.revoked() == frozenset()
    other = Registry(tmp_path)
    other.revoke(client.identity)
    other.close()
    assert registry.revoked() == {client.identity}


def test_a_client_is_found_by_the_beginning_of_its_id_or_by_its_node(registry):
    one, other = registry.add_key(public(), {}), registry.add_key(public(), {})
    registry.settle(one.identity, 2**64 - 3)
    assert registry.found(one.identity[:10]).identity == one.identity
    assert registry.found(str(2**64 - 3)).identity == one.identity
    assert registry.found(other.identity).identity == other.identity
    for start, what in (("nobody", "no client"), ("", "several clients")):
        with pytest.raises(StoreError, match=what):
            registry.found(start)


def test_labels_and_ids_are_known_by_node(registry, tmp_path):
    client = registry.admit(token_of(registry, site="berlin"), public())
    registry.settle(client.identity, 77)
    assert labels.labels(tmp_path) == {77: {"site": "berlin"}}
    assert labels.identities(tmp_path) == {77: client.identity}
    assert labels.labels(tmp_path / "elsewhere") == {}


def test_the_file_holds_no_secret_and_only_its_owner_reads_it(registry, tmp_path):
    token = token_of(registry)
    registry.admit(token, public())
    files = list(tmp_path.glob(f"{FILE}*"))
    assert files
    for path in files:
        assert path.stat().st_mode & 0o077 == 0
        assert token.secret not in path.read_bytes()
        assert token.text.split(".")[2].encode() not in path.read_bytes()


def test_a_damaged_file_is_an_error_that_names_it(tmp_path):
    (tmp_path / FILE).write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match=rf"cannot open .*{FILE}"):
        Registry(tmp_path)


def test_when_a_client_was_last_heard_of_is_kept(registry, clock):
    client = registry.add_key(public(), {"site": "bonn"})
    registry.note_seen({client.identity: 1234.5, "unknown": 1.0})
    assert [(each.seen, each.since) for each in registry.clients()] == [(1234.5, clock.now)]


def test_a_full_disk_is_said_in_words_and_not_in_those_of_sql(registry):
    registry._db.execute("PRAGMA max_page_count = 1")  # SQLite's own way to be full
    with pytest.raises(StoreError, match="cannot be changed: a database cannot be written: the disk is full"):
        registry.add_key(public(), {"site": "x" * 1_000_000})


def test_a_file_of_an_earlier_version_is_brought_up_to_this_one(tmp_path):
    before = registry_.SCHEMA
    with closing(sqlite3.connect(tmp_path / FILE)) as database:
        database.executescript(before)
        database.execute("INSERT INTO client (id, public_key, labels, token, since) VALUES ('a', x'00', '{}', '', 1)")
        database.commit()
    for _ in range(2):
        registry = Registry(tmp_path)
        assert registry.client("a").killed == ""
        registry.close()
    registry = Registry(tmp_path, clock=lambda: 5.0)
    registry.note_killed("a", "out of memory")
    assert (registry.client("a").killed, registry.client("a").killed_at) == ("out of memory", 5.0)
    registry.close()


def test_a_run_tells_of_clients_that_were_killed_since_its_last_round(registry, tmp_path, monkeypatch):
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    first, second = (registry.add_key(public(), {}).identity for _ in range(2))
    for node, identity in ((7, first), (8, second)):
        registry.settle(identity, node)
    registry.note_killed(first, "before this run")
    said = []
    settings = Settings(min_clients=2)
    roster = Roster(Nodes(), settings, WallClock(), said.append, leases=Leases().renew([7, 8]), clients={})
    for moment, told in ((2_000.0, 1), (2_000.0, 1), (3_000.0, 2)):
        registry._clock.now = moment
        if moment != getattr(registry, "last", None):
            registry.note_killed(second, "out of memory: limit 9 MiB, peak 9 MiB")
            registry.last = moment
        roster.gather(1)
        assert len([each for each in said if each["event"] == "warning"]) == told
    texts = [each["text"] for each in said if each["event"] == "warning"]
    assert texts[0] == "client 1 was killed, and is back; out of memory: limit 9 MiB, peak 9 MiB"
