"""The state of a strategy that is not ours: found among its attributes, so that any run can be resumed, without pickle.

Numbers, strings, arrays, Flower's Array and ArrayRecord, lists, tuples and dicts of these, and strategies wrapped in
strategies are taken. Functions and other objects are not: a constructor makes those again.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from fl_common.errors import StrategyError
from fl_common.messages.arrays import decode, encode

STRUCTURE = "structure"  # the key of the JSON text that says which array is what; arrays have the keys "0", "1", ...

Flat = dict[str, NDArray[Any]]


def snapshot(strategy: Strategy) -> Flat:
    """Return the strategy's attributes as flat arrays, for a checkpoint."""
    flat: Flat = {}
    described = _describe_strategy(strategy, flat)
    flat[STRUCTURE] = np.frombuffer(json.dumps(described).encode(), np.uint8)
    return flat


def restore(strategy: Strategy, state: Mapping[str, NDArray[Any]]) -> None:
    """Set the attributes that `snapshot` took. Raises StrategyError where the state is of another class."""
    if STRUCTURE not in state:
        raise StrategyError(f"expected the saved state of {type(strategy).__name__}; got {', '.join(state) or 'none'}")
    _restore(strategy, json.loads(bytes(state[STRUCTURE])), state)


def _describe_strategy(strategy: Strategy, flat: Flat) -> Any:
    described = {
        name: _describe_strategy(value, flat) if isinstance(value, Strategy) else _describe(value, flat)
        for name, value in vars(strategy).items()
    }
    known = {name: item for name, item in described.items() if item is not None}
    return {"kind": "strategy", "class": type(strategy).__qualname__, "items": known}


def _describe(value: Any, flat: Flat) -> Any:
    """Return a JSON description of `value`, adding its arrays to `flat`; None where it is none of the known kinds."""
    match value:
        case np.ndarray() | np.generic() if not value.dtype.hasobject:
            return {"kind": "array" if isinstance(value, np.ndarray) else "scalar", "key": _add(np.array(value), flat)}
        case None | bool() | int() | float() | str():
            return {"kind": "plain", "value": value}
        case Array():
            return {"kind": "flower", "key": _add(decode(value), flat)}
        case ArrayRecord():
            return {"kind": "record", "items": {name: _add(decode(array), flat) for name, array in value.items()}}
        case list() | tuple():
            kind = "tuple" if isinstance(value, tuple) else "list"
            return _all({"kind": kind}, [_describe(item, flat) for item in value])
        case dict() if all(isinstance(key, str) for key in value):
            names = list(value)
            return _all({"kind": "dict", "names": names}, [_describe(item, flat) for item in value.values()])
    return None


def _all(described: dict[str, Any], items: list[Any]) -> dict[str, Any] | None:
    return None if any(item is None for item in items) else described | {"items": items}


def _add(array: NDArray[Any], flat: Flat) -> str:
    key = str(len(flat))
    flat[key] = array
    return key


def _restore(strategy: Strategy, described: Any, state: Mapping[str, NDArray[Any]]) -> None:
    if described["class"] != type(strategy).__qualname__:
        raise StrategyError(f"expected the saved state of {type(strategy).__name__}; got {described['class']}'s")
    for name, item in described["items"].items():
        if item["kind"] == "strategy":
            _restore(getattr(strategy, name), item, state)
        else:
            setattr(strategy, name, _build(item, state))


def _build(described: Any, state: Mapping[str, NDArray[Any]]) -> Any:
    match described["kind"]:
        case "plain":
            return described["value"]
        case "array":
            return state[described["key"]]
        case "scalar":
            return state[described["key"]][()]
        case "flower":
            return encode({"": state[described["key"]]})[""]
        case "record":
            return encode({name: state[key] for name, key in described["items"].items()})
        case "dict":
            values = [_build(item, state) for item in described["items"]]
            return dict(zip(described["names"], values, strict=True))
    items = [_build(item, state) for item in described["items"]]
    return tuple(items) if described["kind"] == "tuple" else items
