"""The engine where things go wrong, and what it says."""

from pathlib import Path

import numpy as np
import psutil
import pytest

from fl_common.errors import DataError, SettingsError, TaskError
from fl_simulation.engine.engine import BatchedEngine, takes_mean
from tests.support.simulated_federation import TASKS, final, settings_of, simulated

RAGGED = str(TASKS / "ragged_task.py")

SHOP = """
import keras, numpy as np

def build_model():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD({rate}), "mse")
    return model

def load_partition(partition, partitions):
    {body}
    x = np.zeros((2 * partition + 2, 3), "float32")
    x[:, 0] = 1
    y = np.full((len(x), 1), 1.0 + partition, "float32")
    return (x, y), (x[:1], y[:1])
"""


def shop(tmp_path: Path, body: str = "pass", rate: str = "0.5") -> str:
    path = tmp_path / f"shop_{abs(hash((body, rate)))}.py"
    path.write_text(SHOP.replace("{body}", body).replace("{rate}", rate))
    return str(path)


@pytest.mark.parametrize("engine", ["vectorized", "loop", "keras"])
def test_a_round_is_what_is_worked_out_by_hand(tmp_path: Path, engine: str):
    """w = 0, loss (w - y)^2, gradient -2y, SGD 0.5: a step ends in y. Clients y = 1 with 2 examples, y = 2 with 4.

    The mean is (2 * 1 + 4 * 2) / 6 = 5/3. The losses are 1 and 4; their mean by examples is 3.
    """
    run = simulated(tmp_path / "run", settings_of(2, task=shop(tmp_path), rounds=1, engine=engine))
    (weights,) = final(run).values()
    np.testing.assert_allclose(weights[:, 0], [5 / 3, 0, 0], rtol=1e-6)
    assert run.rounds()[0]["train_loss"] == pytest.approx(3)


@pytest.mark.parametrize("engine", ["vectorized", "loop", "keras"])
def test_a_client_whose_data_do_not_load_is_rejected_and_no_other(tmp_path: Path, engine: str):
    task = shop(tmp_path, "if partition == 1: raise OSError('the shop is closed')")
    run = simulated(tmp_path / "run", settings_of(3, task=task, rounds=1, engine=engine))
    (event,) = run.rounds()
    assert (event["cohort"], event["replies"], event["rejected"]) == (3, 2, 2)
    rejected = [event for event in run.events() if event["event"] == "rejected"]
    assert {(event["client"], event["reason"], event["detail"]) for event in rejected} == {
        (1, "error", "OSError: the shop is closed")
    }


@pytest.mark.parametrize("engine", ["vectorized", "loop", "keras"])
def test_a_client_that_diverges_is_rejected_and_does_not_reach_the_mean(tmp_path: Path, engine: str):
    body = "if partition == 0: return (np.full((2, 3), 3e38, 'float32'), np.ones((2, 1))), None"
    run = simulated(tmp_path / "run", settings_of(3, task=shop(tmp_path, body), rounds=1, engine=engine))
    (event,) = run.rounds()
    assert (event["cohort"], event["replies"]) == (3, 2)
    rejected = [event for event in run.events() if event["event"] == "rejected"]
    assert {(event["client"], event["reason"]) for event in rejected if event["phase"] == "train"} == {
        (0, "not-finite")
    }
    np.testing.assert_allclose(next(iter(final(run).values()))[:, 0], [(4 * 2 + 6 * 3) / 10, 0, 0], rtol=1e-6)


@pytest.mark.parametrize("limit", [{"max_update_norm": 2.5}, {"metric_limits": "loss=0:5"}])
def test_a_limit_on_replies_costs_the_client_that_is_beyond_it_and_no_other(tmp_path: Path, limit: dict[str, object]):
    """w = 0 and y = 1, 2, 3: a step moves w by y, and the loss before it is y^2."""
    run = simulated(tmp_path / "run", settings_of(3, task=shop(tmp_path), rounds=1, fraction_evaluate=0.0, **limit))
    (event,) = run.rounds()
    assert (event["cohort"], event["replies"]) == (3, 2)
    assert [event["client"] for event in run.events() if event["event"] == "rejected"] == [2]
    np.testing.assert_allclose(next(iter(final(run).values()))[:, 0], [(1 * 2 + 2 * 4) / 6, 0, 0], rtol=1e-6)


def test_an_engine_that_cannot_train_the_model_is_refused_with_the_layer():
    with pytest.raises(TaskError, match=r"engine=vectorized cannot .* \(BatchNormalization\).*engine=auto"):
        BatchedEngine(settings_of(6, task=RAGGED, model="norm", engine="vectorized"))


def test_a_bound_of_memory_too_small_for_one_client_is_refused(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"memory_gb must be at least .* for one client"):
        simulated(tmp_path / "run", settings_of(3, memory_gb=1e-6))


def test_more_clients_than_examples_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="cannot be split into 2000 partitions"):
        simulated(tmp_path / "run", settings_of(2000, fraction=0.01))


def test_only_strategies_that_take_a_plain_mean_get_one():
    assert takes_mean("fedavg")
    assert takes_mean("fedadam")
    assert not takes_mean("flwr.serverapp.strategy:FedAvg")


def test_a_cohort_of_a_hundred_of_a_hundred_thousand_is_quick_and_small(tmp_path: Path):
    task = shop(tmp_path, "partition %= 5")
    settings = settings_of(100_000, task=task, clients_per_round=100, fraction_evaluate=0.0)
    simulated(tmp_path / "warm", settings_of(10, task=task, rounds=1))
    before = psutil.Process().memory_info().rss
    run = simulated(tmp_path / "run", settings)
    assert [event["replies"] for event in run.rounds()] == [100, 100, 100]
    assert psutil.Process().memory_info().rss - before < 150e6
