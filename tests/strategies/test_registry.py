"""The registry: ours by name, anyone's by path, and an error that helps for everything else."""

import subprocess
import sys

import flwr.serverapp.strategy as flowers
import pytest

from fl_common.errors import StrategyError
from fl_common.settings.schema import parse
from strategies import BUILT_IN, argument_names, make


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_strategy_is_made_from_the_default_settings(name):
    assert type(make(parse({"strategy": name}))) is BUILT_IN[name]


def test_settings_reach_the_strategy_and_zero_leaves_its_default():
    strategy = make(parse({"strategy": "fedadam", "beta_1": 0.5, "tau": 0.25, "fraction": 0.5, "seed": 9}))
    assert (strategy.beta_1, strategy.tau, strategy.fraction_train, strategy.seed) == (0.5, 0.25, 0.5, 9)
    assert strategy.learning_rate == 0.1
    assert make(parse({"strategy": "fedadam", "server_learning_rate": 0.3})).learning_rate == 0.3
    assert make(parse({"strategy": "fedprox", "mu": 0.7})).mu == 0.7
    assert make(parse({"strategy": "fedadagrad"})).beta_1 == 0.0


def test_arguments_of_the_strategy_win():
    settings = parse({"strategy": "fedadagrad", "strategy.beta_1": "0.4", "strategy.learning_rate": 2})
    assert (make(settings).beta_1, make(settings).learning_rate) == (0.4, 2)


@pytest.mark.parametrize("name", ["FedAvg", "FedYogi", "FedMedian", "FedTrimmedAvg", "FedProx", "FedAvgM"])
def test_flowers_strategies_are_made_by_path(name):
    strategy = make(parse({"strategy": f"flwr.serverapp.strategy:{name}", "fraction": 0.5, "min_clients": 3}))
    assert type(strategy) is getattr(flowers, name)
    assert (strategy.fraction_train, strategy.min_train_nodes, strategy.min_available_nodes) == (0.5, 1, 3)


def test_flowers_strategies_take_their_own_arguments():
    settings = parse({"strategy": "flwr.serverapp.strategy:Krum", "strategy.num_malicious_nodes": "2"})
    assert make(settings).num_malicious_nodes == 2
    assert {"eta", "tau", "min_train_nodes"} <= argument_names("flwr.serverapp.strategy:FedYogi")
    assert {"mu", "fraction_train", "seed"} <= argument_names("fedprox")


def test_a_number_of_clients_reaches_flowers_strategies_too():
    strategy = make(parse({"strategy": "flwr.serverapp.strategy:FedAvg", "clients_per_round": 5}))
    assert max(int(1000 * strategy.fraction_train), strategy.min_train_nodes) == 5


OWN = """
from strategies.fedavg import FedAvg

class Mine(FedAvg):
    def __init__(self, *, pull=0.5, **more):
        super().__init__(**more)
        self.pull = pull
"""


def test_a_strategy_of_ones_own_is_named_by_its_file(tmp_path):
    (tmp_path / "own_strategy.py").write_text(OWN)
    name = f"{tmp_path}/own_strategy.py:Mine"
    strategy = make(parse({"strategy": name, "strategy.pull": 0.25, "seed": 4}))
    assert (type(strategy).__name__, strategy.pull, strategy.seed) == ("Mine", 0.25, 4)
    with pytest.raises(StrategyError, match=r"has no 'Mein'\. Did you mean Mine\?"):
        make(parse({"strategy": f"{tmp_path}/own_strategy.py:Mein"}))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "strategy .*broken.py: there is no file"),
        ("class Mine(:\n", r"SyntaxError: .*broken\.py, line 1"),
        ("import json\njson.loads('{')\n", r"JSONDecodeError: .*broken\.py, line 2"),
    ],
)
def test_what_is_wrong_with_the_file_of_a_strategy_is_told_with_its_line(tmp_path, source, message):
    if source is not None:
        (tmp_path / "broken.py").write_text(source)
    with pytest.raises(StrategyError, match=message):
        make(parse({"strategy": f"{tmp_path}/broken.py:Mine"}))


def test_an_argument_that_a_strategy_lacks_is_answered_with_those_that_it_has():
    with pytest.raises(StrategyError, match=r"krum takes no argument 'malicious'\. It takes: .*\bf, fraction_evaluate"):
        make(parse({"strategy": "krum", "strategy.malicious": 1}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strategy": "fedaam"}, "unknown strategy 'fedaam'. Did you mean fedadam?"),
        ({"strategy": "nowhere.at_all:X"}, "does not import: ModuleNotFoundError"),
        ({"strategy": "flwr.serverapp.strategy:FedNone"}, "has no 'FedNone'. Did you mean Fed"),
        ({"strategy": "json:JSONDecoder"}, "must be a subclass of flwr.serverapp.strategy.Strategy"),
        ({"strategy": "flwr.serverapp.strategy:Strategy"}, "is abstract"),
        ({"strategy": "fedadam", "strategy.beta1": 1}, "takes no argument 'beta1'. Did you mean beta_"),
        (
            {"strategy": "flwr.serverapp.strategy:FedAvg", "strategy.q": 1},
            "takes no argument 'q'. It takes: .*fraction_train",
        ),
    ],
)
def test_what_cannot_be_made_is_an_error_that_says_what_to_do(values, message):
    with pytest.raises(StrategyError, match=message):
        make(parse(values))


def test_a_constructor_that_refuses_is_reported_with_what_it_takes():
    with pytest.raises(StrategyError, match="refused its arguments: StrategyError: mu must be"):
        make(parse({"strategy": "fedprox", "strategy.mu": -1}))


def test_the_registry_imports_no_tensorflow():
    code = "import sys, strategies; from strategies.host import foreign_state; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
