"""The grid without a network: whom it knows, how it answers, and the unchanged server on it."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fl_client.app import Workplace, make_app
from fl_common.errors import SettingsError
from fl_common.messages.arrays import decode, encode
from fl_common.settings.schema import Settings
from fl_server.app import serve
from fl_server.store.runs import Run
from fl_server.superlink.grid.pulling import Inbox
from fl_simulation.flower.client_apps import ClientAppEngine
from fl_simulation.grid import SimulatedGrid

FLOWERS = (
    "FedAvg", "FedAvgM", "FedAdam", "FedAdagrad", "FedYogi", "FedMedian", "FedTrimmedAvg", "FedProx", "QFedAvg",
    "Krum", "MultiKrum", "Bulyan",
)  # fmt: skip
ARGUMENTS = {"QFedAvg": '{"client_learning_rate": 0.5, "train_loss_key": "loss"}'}


def asked(node: int, value: float = 0.0) -> Message:
    content = RecordDict({"arrays": encode({"w": np.array([value], np.float32)})})
    return Message(content, node, MessageType.TRAIN)


def counting() -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        calls = context.state.config_records.setdefault("calls", ConfigRecord({"n": 0}))
        calls["n"] = int(calls["n"]) + 1
        if context.node_id == 3:
            raise OSError("the shop is closed")
        metrics = MetricRecord({"calls": int(calls["n"]), "partition": int(context.node_config["partition-id"])})
        return Message(RecordDict({"arrays": ArrayRecord(), "metrics": metrics}), reply_to=message)

    return app


def test_nodes_are_numbers_and_messages_to_others_are_not_taken():
    grid = SimulatedGrid(3, ClientAppEngine(counting(), 3))
    assert list(grid.get_node_ids()) == [1, 2, 3]
    assert [bool(each) for each in grid.push_messages([asked(1), asked(4), asked(0)])] == [True, False, False]


def test_a_clients_state_lasts_and_an_exception_is_an_error_reply():
    grid = SimulatedGrid(3, ClientAppEngine(counting(), 3))
    list(grid.send_and_receive([asked(2)]))
    replies = list(grid.send_and_receive([asked(1), asked(2), asked(3)]))
    assert [reply.content["metrics"]["calls"] for reply in replies[:2]] == [1, 2]
    assert [reply.content["metrics"]["partition"] for reply in replies[:2]] == [0, 1]
    assert replies[2].has_error()
    assert replies[2].error.reason == "OSError: the shop is closed"


def test_replies_are_made_one_at_a_time_when_they_are_pulled():
    made: list[int] = []

    class Engine:
        def answer(self, messages):
            for message in messages:
                made.append(message.metadata.dst_node_id)
                yield Message(RecordDict(), reply_to=message)

    grid = SimulatedGrid(5, Engine())
    replies = Inbox(grid).take(grid.push_messages([asked(1), asked(2), asked(3)]))
    assert made == []
    next(replies)
    assert made == [1]
    assert len(list(replies)) == 2
    assert list(grid.pull_messages(["1", "2"])) == []


def test_a_population_of_a_hundred_thousand_costs_next_to_nothing():
    tracemalloc.start()
    grid = SimulatedGrid(100_000, ClientAppEngine(counting(), 100_000))
    list(grid.send_and_receive([asked(99_999)]))
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_an_empty_population_is_refused():
    with pytest.raises(SettingsError, match="at least 1 client"):
        SimulatedGrid(0, ClientAppEngine(counting(), 0))


@pytest.mark.parametrize("name", FLOWERS)
def test_flowers_own_strategies_run_on_the_grid(tmp_path: Path, name: str):
    settings = Settings(
        task="digits", rounds=2, partitions=6, min_clients=6, strategy=f"flwr.serverapp.strategy:{name}",
        tensorboard=False, plot=False, batch_size=128, fraction_evaluate=0.5, strategy_args=ARGUMENTS.get(name, ""),
    )  # fmt: skip
    run = Run.create(tmp_path / "run", settings)
    serve(SimulatedGrid(6, ClientAppEngine(make_app(Workplace()), 6)), settings, run)
    assert [(event["replies"], event["rejected"]) for event in run.rounds()] == [(6, 0), (6, 0)]
    assert run.events()[-1]["event"] == "finished"


def test_the_mean_of_two_clients_is_what_is_worked_out_by_hand(tmp_path: Path):
    """Client 0 answers 1 with 1 example, client 1 answers 5 with 3: the next weight is (1 * 1 + 3 * 5) / 4 = 4."""
    from strategies.fedavg import FedAvg

    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        value, examples = ((1.0, 1), (5.0, 3))[context.node_id - 1]
        arrays, metrics = encode({"w": np.array([value], np.float32)}), MetricRecord({"num-examples": examples})
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    grid = SimulatedGrid(2, ClientAppEngine(app, 2))
    result = FedAvg(fraction_evaluate=0.0).start(grid, encode({"w": np.zeros(1, np.float32)}), num_rounds=1)
    assert decode(result.arrays["w"]).tolist() == [4.0]
