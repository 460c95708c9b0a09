"""Simulated and deployed runs of one seed end in the same weights, whichever way the engine trains."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.published_pictures import folder_for
from tests.support.simulated_federation import TASKS, deployed, final, settings_of, simulated, ways

RAGGED = str(TASKS / "ragged_task.py")
UNEVEN = {"partitioning": "dirichlet", "alpha": 0.3, "batch_size": 16, "local_epochs": 2}


def agree(one, other) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("model", "engines"),
    [
        ("mlp", ("vectorized", "loop", "keras")),
        pytest.param("2nn", ("vectorized", "loop", "keras"), marks=pytest.mark.slow),
        pytest.param("cnn", ("loop", "keras"), marks=pytest.mark.slow),
    ],
)
def test_the_built_in_models_end_in_the_weights_of_the_deployed_client(tmp_path: Path, model: str, engines):
    settings = settings_of(6, model=model, fraction=0.67, **UNEVEN)
    truth = deployed(tmp_path / "deployed", settings)
    for engine in engines:
        run = simulated(tmp_path / engine, settings.model_copy(update={"engine": engine}))
        agree(final(run), final(truth))
        assert ways(run) == [engine]
        for ours, theirs in zip(run.rounds(), truth.rounds(), strict=True):
            same = ("round", "cohort", "replies", "rejected", "bytes_up", "bytes_down")
            assert {key: ours[key] for key in same} == {key: theirs[key] for key in same}
            for key in ("loss", "accuracy", "train_loss", "train_accuracy"):
                assert ours[key] == pytest.approx(theirs[key], abs=1e-4)
            for key, quartiles in theirs["spread"].items():
                assert ours["spread"][key] == pytest.approx(quartiles, abs=1e-4)


@pytest.mark.parametrize(
    ("task", "model", "engines"),
    [
        *(
            pytest.param(task, model, engines, marks=pytest.mark.slow)
            for task, model, engines in (
                ("fashion_mnist", "", ("vectorized",)),
                ("fashion_mnist", "2nn", ("loop", "keras")),
                ("fashion_mnist", "cnn", ("loop", "keras")),
                ("mnist", "", ("vectorized", "loop", "keras")),
                ("mnist", "cnn", ("loop", "keras")),
                ("cifar10", "mlp", ("vectorized", "keras")),
                ("cifar10", "2nn", ("vectorized", "keras")),
                ("cifar10", "", ("loop", "keras")),
            )
        ),
    ],
)
def test_the_built_in_tasks_end_in_the_weights_of_the_deployed_client(tmp_path: Path, task: str, model: str, engines):
    data = folder_for(task, tmp_path / "data")
    settings = settings_of(4, task=task, model=model, data_dir=data, **{**UNEVEN, "alpha": 1.0})
    truth = deployed(tmp_path / "deployed", settings)
    assert truth.rounds()[-1]["train_loss"] < truth.rounds()[0]["train_loss"]
    for engine in engines:
        run = simulated(tmp_path / engine, settings.model_copy(update={"engine": engine}))
        agree(final(run), final(truth))
        assert ways(run) == [engine]


@pytest.mark.parametrize(
    ("model", "engine"),
    [
        *(pytest.param("", engine, marks=pytest.mark.slow) for engine in ("vectorized", "loop", "keras")),
        *(pytest.param("norm", engine, marks=pytest.mark.slow) for engine in ("loop", "keras")),
    ],
)
def test_a_users_model_with_dropout_adam_and_batchnorm_agrees_on_ragged_clients(tmp_path: Path, model, engine):
    settings = settings_of(6, task=RAGGED, model=model, local_epochs=2)
    truth = deployed(tmp_path / "deployed", settings)
    run = simulated(tmp_path / "simulated", settings.model_copy(update={"engine": engine}))
    agree(final(run), final(truth))
    assert [event["replies"] for event in run.rounds()] == [6, 6, 6]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fedprox", "fedadam", "flwr.serverapp.strategy:FedMedian"])
def test_strategies_agree_with_deployment(tmp_path: Path, strategy: str):
    settings = settings_of(5, strategy=strategy, **UNEVEN)
    run = simulated(tmp_path / "simulated", settings)
    assert ways(run) == ["vectorized"]
    agree(final(run), final(deployed(tmp_path / "deployed", settings)))


@pytest.mark.slow
def test_the_choice_follows_the_layers_and_says_so(tmp_path: Path):
    norm = simulated(tmp_path / "norm", settings_of(6, task=RAGGED, model="norm", rounds=1))
    assert ways(norm) == ["loop"]
    reason = next(event["reason"] for event in norm.events() if event["event"] == "engine")
    assert "BatchNormalization" in reason
    cnn = simulated(tmp_path / "cnn", settings_of(4, model="cnn", rounds=1))
    assert ways(cnn) == ["loop"]


@pytest.mark.slow
def test_a_cohort_that_does_not_fit_in_memory_is_split_and_ends_the_same(tmp_path: Path):
    settings = settings_of(9, rounds=2, **UNEVEN)
    whole = simulated(tmp_path / "whole", settings)
    split = simulated(tmp_path / "split", settings.model_copy(update={"memory_gb": 2.5e-4}))
    agree(final(split), final(whole))
    assert [event["replies"] for event in split.rounds()] == [9, 9]
