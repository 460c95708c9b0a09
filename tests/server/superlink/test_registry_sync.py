"""The keeper: who is gone for long is forgotten, with what it told of its data; who is there is not."""

import pytest
from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.superlink.federation import NoOpFederationManager

from fl_common.trust.enrolment import UNKNOWN
from fl_server.access.client_registry import Registry
from fl_server.access.data_schemas import FOLDER, Schemas
from fl_server.superlink.fleet.liveness import LastHeard, Sessions
from fl_server.superlink.fleet.registry_sync import BACK_SECONDS, RegistrySync, shut_out
from tests.server.access.test_client_registry import Clock, public, token_of

DAY = 86_400.0


class House:
    def __init__(self, home, forget_after):
        name = FLWR_IN_MEMORY_DB_NAME
        self.clock = Clock()
        self.registry = Registry(home, clock=self.clock)
        self.sessions, self.seen = Sessions(), LastHeard(self.clock)
        factory = LinkStateFactory(name, NoOpFederationManager(), ObjectStoreFactory(name))
        self.state, self.home = factory.state(), home
        self.set = 0.0  # by which the machine's clock was set
        self.keeper = RegistrySync(
            self.registry, self.sessions, self.seen, factory, Schemas(home), forget_after, self.clock,
            lambda: self.clock.now - self.set,
        )  # fmt: skip
        self.token = token_of(self.registry, uses=99, seconds=1e9)

    def client(self):
        key = public()
        found = self.registry.admit(self.token, key)
        node = self.state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, key, 30)
        (self.home / FOLDER).mkdir(exist_ok=True)
        (self.home / FOLDER / str(node)).write_text("{}")
        return found.identity

    def known(self):
        self.keeper.turn()
        self.keeper.turn()  # expels who was forgotten
        return {each.identity for each in self.registry.clients()}

    def schemas(self):
        return len(list((self.home / FOLDER).iterdir()))


@pytest.fixture
def house(request, tmp_path):
    return House(tmp_path, getattr(request, "param", 30 * DAY))


def test_who_was_not_heard_of_for_so_long_is_forgotten_with_what_it_told(house):
    gone, there, connected, revoked = (house.client() for _ in range(4))
    house.registry.revoke(revoked)
    house.sessions.opened(connected, lambda code, why: None)
    house.keeper.turn()
    for _ in range(31):
        house.clock.now += DAY
        house.seen.now(there)
        house.keeper.turn()
    assert house.known() == {there, connected, revoked}
    assert shut_out(house.registry, gone) == UNKNOWN
    assert house.schemas() == 2  # nor is one kept of who was revoked


@pytest.mark.parametrize("house", [0.0], indirect=True)
def test_by_default_nobody_is_forgotten(house):
    clients = {house.client() for _ in range(2)}
    house.keeper.turn()
    house.clock.now += 1000 * DAY
    assert house.known() == clients


def test_a_server_that_was_away_itself_gives_its_clients_time_to_come_back(house):
    back, gone = house.client(), house.client()
    house.clock.now += 100 * DAY  # the server starts now
    assert house.known() == {back, gone}
    house.clock.now += BACK_SECONDS / 2
    house.seen.now(back)
    assert house.known() == {back, gone}
    house.clock.now += BACK_SECONDS
    assert house.known() == {back}


def test_a_clock_that_is_set_forward_makes_nobody_silent_and_set_back_stops_no_notes(house):
    there, gone = house.client(), house.client()
    house.keeper.turn()
    house.clock.now += 2 * BACK_SECONDS
    house.keeper.turn()
    house.clock.now += 100 * DAY
    house.set += 100 * DAY
    assert house.known() == {there, gone}
    house.clock.now += BACK_SECONDS / 2
    house.seen.now(there)
    assert house.known() == {there, gone}
    house.clock.now += BACK_SECONDS
    assert house.known() == {there}
    house.clock.now -= 3600.0
    house.set -= 3600.0
    house.keeper.turn()
    house.clock.now += 5.0
    house.seen.now(there)
    house.keeper.turn()
    assert house.registry.client(there).seen == house.clock.now
