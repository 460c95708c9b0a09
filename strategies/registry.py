"""Settings -> strategy: ours by name, Flower's and a user's own by import path."""

import difflib
import inspect
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from flwr.serverapp.strategy import Strategy

from fl_common.errors import StrategyError, TaskError
from fl_common.settings.schema import Settings
from fl_common.tasks import user_modules
from strategies.bulyan import Bulyan
from strategies.centered_clipping import CenteredClipping
from strategies.fedavg import FedAvg
from strategies.fedprox import FedProx
from strategies.krum import Krum, MultiKrum
from strategies.median import Median
from strategies.norm_clipping import NormClipping
from strategies.rfa import RFA
from strategies.server_optimizer import FedAdagrad, FedAdam, FedAvgM, FedYogi
from strategies.trimmed_mean import TrimmedMean

BUILT_IN: dict[str, type[FedAvg]] = {
    "fedavg": FedAvg,
    "fedprox": FedProx,
    "fedavgm": FedAvgM,
    "fedadam": FedAdam,
    "fedyogi": FedYogi,
    "fedadagrad": FedAdagrad,
    "median": Median,
    "trimmedmean": TrimmedMean,
    "krum": Krum,
    "multikrum": MultiKrum,
    "bulyan": Bulyan,
    "rfa": RFA,
    "normclipping": NormClipping,
    "centeredclipping": CenteredClipping,
}


def make(settings: Settings) -> Strategy:
    """Return the strategy that the settings name, with the arguments they hold.

    `strategy_args` win over the other settings. Raises StrategyError for an unknown name, a path that does not import,
    a class that is no Strategy, and an argument that the constructor does not take or refuses.
    """
    kind = find(settings.strategy)
    taken = parameters(kind)
    known = _ours(settings) if issubclass(kind, FedAvg) else _flowers(settings)
    own = settings.strategy_arguments()
    for name in own:
        if name not in taken:
            raise StrategyError(f"{settings.strategy} takes no argument {name!r}. {_takes(name, taken)}")
    try:
        return kind(**({name: value for name, value in known.items() if name in taken} | own))
    except Exception as error:  # a user's own constructor may raise anything
        detail = f"{type(error).__name__}: {error}"
        raise StrategyError(f"{settings.strategy} refused its arguments: {detail}. It takes: {_list(taken)}") from error


def argument_names(strategy: str) -> set[str]:
    """Return the names that `--set strategy.NAME=...` may set for the strategy called `strategy`."""
    return set(parameters(find(strategy)))


def find(name: str) -> type[Strategy]:
    """Return the class called `name`, one of BUILT_IN or `module:Class`."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    found = _imported(name)
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise StrategyError(f"{name} must be a subclass of flwr.serverapp.strategy.Strategy; got {found!r}")
    if inspect.isabstract(found):
        raise StrategyError(f"{name} is abstract; name a class that has {_list(found.__abstractmethods__)}")
    return found


def file_of(name: str) -> str:
    """Return the path of the Python file that `./my.py:Class` names; "" for any other name."""
    module, colon, _ = name.rpartition(":")
    return module if colon and user_modules.is_path(module) else ""


def _imported(name: str) -> Any:
    module, colon, attribute = name.rpartition(":")
    if not colon:
        others = "Any other by its import path, module:Class, or its file, ./my.py:Class."
        raise StrategyError(f"unknown strategy {name!r}. {_near(name, BUILT_IN)} {others}")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        found = user_modules.load(module, "strategy") if file_of(name) else import_module(module)
    except TaskError as error:
        raise StrategyError(str(error)) from error
    except Exception as error:  # importing a user's module may raise anything
        detail = f"{type(error).__name__}: {error}"
        raise StrategyError(
            f"strategy {name!r} does not import: {detail} ({user_modules.place(error, module)})"
        ) from error
    if not hasattr(found, attribute):
        raise StrategyError(f"strategy {name!r}: {module} has no {attribute!r}. {_near(attribute, _strategies(found))}")
    return getattr(found, attribute)


def _strategies(module: ModuleType) -> dict[str, Any]:
    return {key: each for key, each in vars(module).items() if isinstance(each, type) and issubclass(each, Strategy)}


def parameters(kind: type[Strategy]) -> dict[str, inspect.Parameter]:
    """Return the keyword parameters of a constructor, following **kwargs up the base classes."""
    found: dict[str, inspect.Parameter] = {}
    for base in kind.__mro__:
        if "__init__" not in vars(base) or base is object:
            continue
        of_base = dict(list(inspect.signature(vars(base)["__init__"]).parameters.items())[1:])
        found = {name: each for name, each in of_base.items() if each.kind in _KEYWORD} | found
        if not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in of_base.values()):
            break
    return found


_KEYWORD = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _ours(settings: Settings) -> dict[str, Any]:
    known: dict[str, Any] = {
        "fraction_train": settings.fraction,
        "clients_per_round": settings.clients_per_round,
        "fraction_evaluate": settings.fraction_evaluate,
        "over_selection": settings.over_selection,
        "max_examples": settings.max_examples,
        "seed": settings.seed,
        "momentum": settings.server_momentum,
        "beta_1": settings.beta_1,
        "beta_2": settings.beta_2,
        "tau": settings.tau,
    }
    if settings.strategy == "fedadagrad":
        del known["beta_1"]  # the setting is FedAdam's and FedYogi's; Adagrad's is --set strategy.beta_1=...
    # 0 leaves these to the strategy's own defaults.
    optional = {"learning_rate": settings.server_learning_rate, "mu": settings.mu}
    return known | {name: value for name, value in optional.items() if value}


def _flowers(settings: Settings) -> dict[str, Any]:
    evaluation = {"fraction_evaluate": settings.fraction_evaluate}
    evaluation["min_evaluate_nodes"] = 1 if settings.fraction_evaluate else 0
    if chosen_for(settings):
        return {"fraction_train": 1.0, "min_train_nodes": 1, "min_available_nodes": 1, **evaluation}
    # Flower takes max(int(fraction * nodes), min_train_nodes) nodes, and none where the fraction is 0.
    number = settings.clients_per_round
    return {
        "fraction_train": 1e-9 if number else settings.fraction,
        "min_train_nodes": number or 1,
        "min_available_nodes": max(settings.min_clients, number),
        **evaluation,
    }


def chosen_for(settings: Settings) -> bool:
    """Say whether a strategy that is not ours sees, and so asks, only the clients that were chosen for it."""
    return settings.selection != "random" or settings.over_selection > 1


def _takes(name: str, taken: Mapping[str, Any]) -> str:
    """Return what a strategy takes, for one who named an argument that it does not take."""
    near = difflib.get_close_matches(name, taken, n=1, cutoff=0.5)
    return (f"Did you mean {near[0]}? " if near else "") + f"It takes: {_list(taken)}."


def _near(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean {near[0]}?" if near else f"Known: {_list(known)}."


def _list(names: Any) -> str:
    return ", ".join(sorted(names))
