"""Flower's strategies that need more than a model's weights, and ordinary ClientApps with mods, on our grid."""

import json
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import adaptiveclipping_mod, fixedclipping_mod
from flwr.serverapp import strategy as flowers
from flwr.serverapp.strategy import FedAvg, FedXgbBagging, FedXgbCyclic, Strategy

from fl_client.app import Workplace, make_app
from fl_common.settings.schema import Settings
from fl_server.app import serve
from fl_server.store.runs import Run
from fl_simulation.flower.client_apps import ClientAppEngine
from fl_simulation.grid import SimulatedGrid
from tests.simulation.test_grid import FLOWERS
from tests.support import wrapped_strategies
from tests.support.simulated_federation import Silent, final

MODS = {"ClientFixed": fixedclipping_mod, "ClientAdaptive": adaptiveclipping_mod}


def served(directory: Path, strategy: str, mods: list = ()) -> Run:
    """Run two rounds of digits with a wrapper, and clients that are ours with these mods.

    Flower's clipping mods ask for a clipping norm in every message, which only training's have: they do not evaluate.
    """
    settings = Settings(
        task="digits", rounds=2, partitions=6, min_clients=6, strategy=f"{wrapped_strategies.__name__}:{strategy}",
        tensorboard=False, plot=False, batch_size=128, fraction_evaluate=0.0 if mods else 1.0,
    )  # fmt: skip
    run = Run.create(directory, settings)
    app = make_app(Workplace(), ClientApp(mods=list(mods)))
    serve(SimulatedGrid(6, ClientAppEngine(app, 6)), settings, run, observer=Silent())
    assert [(event["replies"], event["rejected"]) for event in run.rounds()] == [(6, 0), (6, 0)]
    assert run.events()[-1]["event"] == "finished"
    return run


@pytest.mark.parametrize("strategy", ["ServerAdaptive", "ClientAdaptive"])
def test_flowers_wrappers_with_an_adaptive_norm_run_on_the_grid(tmp_path: Path, strategy: str):
    served(tmp_path / "run", strategy, [MODS[strategy]] if strategy in MODS else [])


def test_clipping_by_the_server_is_clipping_by_flowers_mod_in_the_client(tmp_path: Path):
    server = served(tmp_path / "server", "ServerFixed")
    client = served(tmp_path / "client", "ClientFixed", [fixedclipping_mod])
    for name, array in final(server).items():
        np.testing.assert_allclose(final(client)[name], array, rtol=0, atol=1e-6)


def test_every_strategy_of_flowers_is_run_here_or_beside():
    known = {name for name, each in vars(flowers).items() if isinstance(each, type) and issubclass(each, Strategy)}
    wrapped = {each.__mro__[1].__name__ for each in vars(wrapped_strategies).values() if isinstance(each, type)}
    assert known - {"Strategy"} == {*FLOWERS, "FedXgbBagging", "FedXgbCyclic"} | (wrapped & known) - {"Strategy"}


def trees(*sizes: int) -> dict:
    """Return what XGBoost saves of a forest, as far as Flower reads it: one tree a client, with its size."""
    param = {"num_trees": str(len(sizes)), "num_parallel_tree": "1"}
    model = {
        "gbtree_model_param": param,
        "iteration_indptr": list(range(len(sizes) + 1)),
        "trees": [{"id": place, "size": size} for place, size in enumerate(sizes)],
        "tree_info": [0] * len(sizes),
    }
    return {"learner": {"gradient_booster": {"model": model}}}


def forester() -> ClientApp:
    """Return an app whose client answers with one tree of the size of its number, as bytes of JSON."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        seen = message.content["arrays"]["0"].numpy().tobytes()
        before = len(grown(seen)) if seen else 0
        metrics = MetricRecord({"num-examples": context.node_id, "before": before})
        text = json.dumps(trees(context.node_id)).encode()
        arrays = ArrayRecord([np.frombuffer(text, np.uint8)])
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    return app


def grown(text: bytes) -> list[int]:
    model = json.loads(text)["learner"]["gradient_booster"]["model"]
    assert model["gbtree_model_param"]["num_trees"] == str(len(model["trees"]))
    return [tree["size"] for tree in model["trees"]]


@pytest.mark.parametrize(
    ("strategy", "sizes"), [(FedXgbBagging, [[1, 2, 3], [1, 2, 3, 1, 2, 3]]), (FedXgbCyclic, [None, None])]
)
def test_flowers_forests_grow_on_the_grid_from_bytes(strategy, sizes):
    grid = SimulatedGrid(3, ClientAppEngine(forester(), 3))
    forests, arrays = [], ArrayRecord([np.frombuffer(b"", np.uint8)])
    rule = strategy(fraction_evaluate=0.0)
    result = rule.start(grid, arrays, num_rounds=2, evaluate_fn=lambda number, arrays: forests.append(arrays) or None)
    assert len(result.train_metrics_clientapp) == 2
    found = [grown(arrays["0"].numpy().tobytes()) for arrays in forests[1:]]
    if sizes[0]:
        assert [sorted(each) for each in found] == [sorted(each) for each in sizes]
        assert result.train_metrics_clientapp[2]["before"] == 3
    else:  # one client a round, each with the next number in the order in which they were first drawn
        assert [len(each) for each in found] == [1, 1]
        assert found[0] != found[1]


def test_a_clientapps_own_mods_see_each_message_on_the_way_in_and_out():
    seen = []

    def doubling(message, context, call_next):
        seen.append(context.node_id)
        reply = call_next(message, context)
        (value,) = reply.content["arrays"].to_numpy_ndarrays()
        reply.content["arrays"] = ArrayRecord([value * 2])
        return reply

    app = ClientApp(mods=[doubling])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        (value,) = message.content["arrays"].to_numpy_ndarrays()
        metrics = MetricRecord({"num-examples": 1})
        return Message(RecordDict({"arrays": ArrayRecord([value + 1]), "metrics": metrics}), reply_to=message)

    grid = SimulatedGrid(3, ClientAppEngine(app, 3))
    result = FedAvg(fraction_evaluate=0.0).start(grid, ArrayRecord([np.zeros(1, np.float32)]), num_rounds=2)
    assert result.arrays.to_numpy_ndarrays()[0].tolist() == [6.0]  # ((0 + 1) * 2 + 1) * 2
    assert sorted(seen) == [1, 1, 2, 2, 3, 3]
