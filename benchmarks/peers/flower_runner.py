"""Flower's own simulation, on Ray, in the form of its quickstart-tensorflow. Variants: "" builds, compiles and fits the
model in every message, as the quickstart does; "cached" keeps the compiled model in each Ray actor.

Which client a node is comes in the message, so that the cohorts are those of the plan.
"""

import os
import time
from collections.abc import Iterable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from plan import Plan, Report, arguments

KEPT: dict[str, Any] = {}  # in each Ray actor: the data, as the quickstart keeps its FederatedDataset, and the model


def client_app(asked: Any) -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        import keras
        import keras_models

        if "plan" not in KEPT:
            KEPT["plan"] = plan = Plan(asked.plan)
            KEPT["data"] = plan.scaled()
        if asked.variant != "cached":
            keras.backend.clear_session()
        if asked.variant != "cached" or "model" not in KEPT:
            KEPT["model"] = keras_models.build(keras, asked.model)
            KEPT["model"].compile(keras.optimizers.SGD(asked.learning_rate), "sparse_categorical_crossentropy")
        model, (x, y) = KEPT["model"], KEPT["data"]
        model.set_weights(message.content["arrays"].to_numpy_ndarrays())
        turn = message.content["config"]
        rows = KEPT["plan"].rows(int(turn["number"]), int(turn["place"]))
        history = model.fit(x[rows], y[rows], batch_size=asked.batch_size, epochs=1, shuffle=False, verbose=0)
        metrics = MetricRecord({"num-examples": len(rows), "train_loss": history.history["loss"][-1]})
        content = RecordDict({"arrays": ArrayRecord(model.get_weights()), "metrics": metrics})
        return Message(content=content, reply_to=message)

    return app


class Planned(FedAvg):
    """Flower's FedAvg over the plan's cohorts; it notes when each round's training begins and is aggregated."""

    def __init__(self, plan: Plan, report: Report, **kwargs: Any) -> None:
        super().__init__(fraction_evaluate=0.0, min_available_nodes=len(plan.sizes), **kwargs)
        self._plan, self._report, self._began = plan, report, 0.0
        self.arrays: ArrayRecord | None = None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        if not self._report.go_on():
            return []
        nodes = sorted(grid.get_node_ids())
        while len(nodes) < len(self._plan.sizes):
            time.sleep(0.1)
            nodes = sorted(grid.get_node_ids())
        self._began = time.perf_counter()
        contents = [
            RecordDict({"arrays": arrays, "config": ConfigRecord({"number": server_round - 1, "place": place})})
            for place in range(len(self._plan.cohorts[server_round - 1]))
        ]
        asked = self._plan.cohorts[server_round - 1]
        return [
            Message(content=content, message_type=MessageType.TRAIN, dst_node_id=nodes[client])
            for content, client in zip(contents, asked, strict=True)
        ]

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        replies = list(replies)
        if not replies:
            return None, None
        result = super().aggregate_train(server_round, replies)
        self._report.round(time.perf_counter() - self._began)
        self.arrays = result[0]
        return result


def main() -> None:
    asked = arguments()
    plan = Plan(asked.plan)
    server = ServerApp()

    @server.main()
    def serve(grid: Grid, context: Context) -> None:
        import keras
        import keras_models

        report = Report(asked)
        strategy = Planned(plan, report)
        strategy.start(grid=grid, initial_arrays=ArrayRecord(plan.weights), num_rounds=asked.rounds)
        net = keras_models.build(keras, asked.model, strategy.arrays.to_numpy_ndarrays())
        found = net.predict(plan.x_test.astype(np.float32) / 255, batch_size=1000, verbose=0).argmax(1)
        report.end((found == plan.y_test).mean(), "flwr", "ray", "tensorflow-cpu", "keras", "numpy")

    run_simulation(
        server,
        client_app(asked),
        num_supernodes=len(plan.sizes),
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )


if __name__ == "__main__":
    main()
