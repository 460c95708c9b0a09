"""What a user's module sets for all of Keras when it is imported: kept, since building a model begins Keras anew."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

# Keras's own names of what keras.config sets and keras.utils.clear_session forgets: the dtype policy above all.
NAMES = ("dtype_policy", "safe_mode_saving", "flash_attention", "traceback_filtering", "interactive_logging")
KEPT_AS = "__keras_settings__"


@contextmanager
def noted() -> Iterator[dict[str, Any]]:
    """Give what is set within the block, filled in at its end; what was set before it stands again afterwards."""
    found: dict[str, Any] = {}
    before = _current()
    put({})
    try:
        yield found
        found.update(_current())
    finally:
        put(before)


def keep(module: ModuleType, found: Mapping[str, Any]) -> None:
    """Have `of` return for a module what was noted when it was first loaded."""
    if not hasattr(module, KEPT_AS):
        setattr(module, KEPT_AS, dict(found))


def of(module: ModuleType) -> Mapping[str, Any]:
    """Return what a module set when it was imported."""
    settings: Mapping[str, Any] = getattr(module, KEPT_AS, {})
    return settings


def put(settings: Mapping[str, Any]) -> None:
    """Set all that can be set: to what stands in `settings`, or else to Keras's defaults. Nothing without Keras."""
    if "keras" in sys.modules:
        for name in NAMES:
            sys.modules["keras"].src.backend.common.global_state.set_global_attribute(name, settings.get(name))


def _current() -> dict[str, Any]:
    if "keras" not in sys.modules:
        return {}
    read = sys.modules["keras"].src.backend.common.global_state.get_global_attribute
    return {name: value for name in NAMES if (value := read(name)) is not None}
