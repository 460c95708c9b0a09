"""Clients that call their data otherwise are left out before the first round, and told their own names only."""

import pytest
from flwr.app import Context, RecordDict

from fl_client.app import Workplace, make_app
from fl_client.link.connection import Connection
from fl_common.errors import DataError
from fl_common.settings.schema import Settings
from fl_common.tasks.client_data.data_names import Schema
from fl_server import app
from fl_server.access.data_schemas import Schemas
from fl_server.rounds.clients import waiting
from fl_server.rounds.clients.data_agreement import DIFFERS, OTHERS_LACK, Agreement
from tests.support.driven_server import Server, grid_for_a_module, server_for_a_module
from tests.support.in_process_grid import InProcessGrid, client

COMMON = Schema({"age": "number", "dose": "number"}, "ill")
TURNED = Schema({"dose": "number", "age": "integer"}, "ill")
MORE = Schema({"age": "number", "dose": "number", "insurance": "number"}, "ill")
OTHER = Schema({"Age": "number", "dose": "number"}, "ill")


class Saying:
    def __init__(self, schemas, settled="", nodes=()):
        self.grid = InProcessGrid({node: lambda message: None for node in [*schemas, *nodes]})
        self.said = []
        self.agreement = Agreement(
            self.grid, lambda: schemas, self.said.append, identities=lambda: {2: "abc"}, settled=settled
        )

    def agreeing(self):
        return self.agreement.agreeing(list(self.grid.nodes))

    @property
    def told(self):
        return {
            message.metadata.dst_node_id: message.content["config"][OTHERS_LACK]
            for message in self.grid.sent
            if message.metadata.message_type == DIFFERS
        }


def test_what_most_clients_say_counts_and_who_differs_is_left_out_and_told_once():
    saying = Saying({1: COMMON, 2: MORE, 3: COMMON}, nodes=[4])
    assert saying.agreeing() == saying.agreeing() == [1, 3, 4]
    (event,) = saying.said
    assert (event["event"], event["node"], event["id"]) == ("differs", "2", "abc")
    assert event["detail"] == "it has the column 'insurance', which the others lack"
    assert saying.told == {2: ["insurance"]}
    assert len(saying.grid.sent) == 1


def test_a_client_is_never_told_a_name_of_another():
    saying = Saying({1: OTHER, 2: COMMON, 3: COMMON})
    saying.agreeing()
    assert saying.told == {1: ["Age"]}
    assert "'age'" in saying.said[0]["detail"]
    lacking = Saying({1: COMMON, 2: MORE, 3: MORE})
    lacking.agreeing()
    assert lacking.told == {1: []}


def test_where_no_half_is_the_larger_nobody_is_right_and_each_is_told_its_own_names():
    saying = Saying({1: COMMON, 2: COMMON, 3: OTHER, 4: OTHER})
    assert saying.agreeing() == []
    assert saying.told == {1: ["age"], 2: ["age"], 3: ["Age"], 4: ["Age"]}
    assert "'Age'" in str(saying.agreement.error())


def test_a_client_that_comes_back_in_order_takes_part():
    schemas = {1: COMMON, 2: MORE, 3: COMMON}
    saying = Saying(schemas)
    saying.agreeing()
    schemas[2] = COMMON
    assert saying.agreeing() == [1, 2, 3]


def test_a_run_keeps_to_what_it_has_settled_on_and_goes_on_with_it():
    schemas = {1: COMMON}
    saying = Saying(schemas, nodes=[2, 3])
    saying.agreeing()
    saying.agreement.settle()
    schemas |= {2: MORE, 3: MORE}
    assert saying.agreeing() == [1]
    again = Saying({2: MORE, 3: TURNED}, settled=saying.agreement.settled)
    assert again.agreeing() == [3]
    assert again.agreement.order(3) == ["age", "dose"]


def test_only_who_has_another_order_is_told_that_of_the_run():
    saying = Saying({1: TURNED, 2: COMMON, 3: COMMON}, nodes=[4])
    assert saying.agreeing() == [1, 2, 3, 4]
    saying.agreement.settle()
    assert [saying.agreement.order(node) for node in (1, 2, 3, 4)] == [["age", "dose"], [], [], []]


def test_where_nobody_tells_a_name_nothing_is_compared_or_changed():
    nodes = range(1, 100_000)
    saying = Saying({})
    assert saying.agreement.agreeing(nodes) is nodes
    saying.agreement.settle()
    assert saying.agreement.settled == ""


def test_schemas_are_noted_for_the_node_that_tells_them_and_gone_when_it_joins_without(tmp_path):
    writing, reading = Schemas(tmp_path), Schemas(tmp_path)
    assert reading.known() == {}
    writing.expect("abc", COMMON.text())
    assert reading.known() == {}
    writing.settle("abc", 7)
    assert reading.known() == {7: COMMON}
    writing.expect("abc", MORE.text())
    writing.settle("abc", 7)
    writing.settle("other", 8)
    assert reading.known() == {7: MORE}
    writing.settle("abc", 7)
    assert reading.known() == {}
    (tmp_path / "schemas" / "9").write_text("?")
    assert reading.known() == {}


def serve(tmp_path, schemas, **changes):
    grid = InProcessGrid({node: client(make_app(Workplace()), resident=True) for node in schemas})
    grid.schemas = schemas
    settings = Settings(rounds=1, partitions=2, out=str(tmp_path / "run"), tensorboard=False, plot=False, **changes)
    run = app.open_run(settings)
    app.serve(grid, settings, run)
    return grid, run


def test_a_run_whose_clients_differ_ends_before_its_first_round_with_the_columns_name(tmp_path, monkeypatch):
    monkeypatch.setattr(waiting, "DIFFER_SECONDS", 0.0)
    with pytest.raises(DataError, match=r"has the column 'insurance', which the others lack") as caught:
        serve(tmp_path, {5: MORE, 6: COMMON})
    assert caught.value.exit_code == 2
    events = [event["event"] for event in app.Run.open(tmp_path / "run").events()]
    assert events == ["started", "differs", "differs", "failed"]


def test_a_run_goes_on_without_who_differs_where_enough_are_left(tmp_path):
    grid, run = serve(tmp_path, {5: MORE, 6: COMMON, 7: TURNED}, fraction_evaluate=0.0)
    assert [event["event"] for event in run.events()] == ["started", "differs", "round", "finished"]
    trained = [message for message in grid.sent if message.metadata.message_type == "train"]
    assert {message.metadata.dst_node_id for message in trained} == {6, 7}
    orders = [message.content["config"].get("columns") for message in trained]
    assert len([order for order in orders if order]) == 1


def test_the_client_says_in_its_own_log_which_of_its_names_others_lack(caplog):
    saying = Saying({1: MORE, 2: COMMON, 3: COMMON})
    saying.agreeing()
    context = Context(1, 1, {"resident": True}, RecordDict(), {})
    reply = make_app(Workplace())(saying.grid.sent[0], context)
    assert reply.has_content()
    assert "Its names that they lack: 'insurance'" in caplog.text


server = server_for_a_module(Server)
grid = grid_for_a_module()


def test_a_client_tells_its_schema_when_it_joins(server, grid):
    with Connection(server.addresses.fleet, schema=COMMON.text()) as connection:
        node = connection.join()
        assert Schemas(server.directory).known() == {node: COMMON}
        connection.join()
        assert Schemas(server.directory).known() == {node: COMMON}
        connection.leave()


def test_a_schema_that_is_none_or_too_large_keeps_no_client_out(server, grid):
    with Connection(server.addresses.fleet, schema="{}") as connection:
        assert connection.join()
        connection.leave()
    huge = Schema({f"column {number}": "number" for number in range(30_000)}, "ill")
    with Connection(server.addresses.fleet, schema=huge.text()) as connection:
        assert connection.join() not in Schemas(server.directory).known()
        connection.leave()
