"""When a run is over: its rounds are done, its target is reached, or nothing got better for too long.

The metric that counts is compared with the model's before the first round, and with the first result.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from fl_common.errors import SettingsError
from fl_common.settings.best_metric import COUNTS, Measure
from fl_common.settings.schema import Settings
from fl_server.rounds.state import State

if TYPE_CHECKING:
    from fl_common.models.frameworks import keras

NO_METRICS = {"evaluated_on", "seconds"}  # which stand in a result beside them
# A model that overrides one of these may report any metric.
MEASURING = ("test_step", "compute_metrics", "get_metrics_result", "evaluate")


def over(settings: Settings, state: State) -> str | None:
    """Return why a run is over: "rounds", "target_accuracy" or "patience"; None where it goes on.

    Raises SettingsError where the metric that counts is not in the last result.
    """
    if state.result:
        _check(settings, state.result, f"round {state.round} has")
    if settings.target_accuracy and _reached(settings.measure_of_target(), state, settings.target_accuracy):
        return "target_accuracy"
    if settings.patience and state.since_best >= settings.patience:
        return "patience"
    return "rounds" if state.round >= settings.rounds else None


def check(settings: Settings, model: "keras.Model") -> None:
    """Raise SettingsError where a setting names a metric that the model does not report."""
    if (known := reported(model)) is not None:
        _check(settings, known, "the model has")


def reported(model: "keras.Model") -> set[str] | None:
    """Return the names of the metrics that a compiled model reports; None where only a trial can tell."""
    from fl_common.models.frameworks import keras
    from fl_common.models.tensors import overrides

    compiled = model._compile_metrics
    given = [] if compiled is None else [compiled._user_metrics, compiled._user_weighted_metrics]
    metrics = [each for each in keras.tree.flatten(given) if each is not None]
    own = [each for each in metrics if isinstance(each, keras.metrics.Metric) and not _of_keras(each)]
    if overrides(model, *MEASURING) or own:
        return None
    names = {"loss", *(_name(each) for each in metrics), *(each.name for each in model.metrics if each is not compiled)}
    outputs = list(getattr(model, "output_names", None) or ())
    return names | {f"{output}_{name}" for output in outputs if len(outputs) > 1 for name in names}


def _check(settings: Settings, known: Collection[str], where: str) -> None:
    for setting, measure in _counting(settings):
        if not any(name == measure.metric or _is_part(measure.metric, name) for name in known):
            raise SettingsError(
                f"{setting} counts the metric {measure.metric}, which is not there: {where} "
                f"{', '.join(sorted(set(known) - NO_METRICS))}. "
                f"Name the one that counts with --set {COUNTS if setting != 'keep_best' else setting}=NAME."
            )


def _counting(settings: Settings) -> list[tuple[str, Measure]]:
    """Return the settings in use that look at a metric, and which."""
    found: list[tuple[str, Measure | None]] = [
        ("target_accuracy", settings.measure_of_target() if settings.target_accuracy else None),
        ("patience", settings.measure_counted() if settings.patience else None),
        (COUNTS, settings.measure_counted() if settings.metric else None),
        ("keep_best", settings.measure_kept() if settings.keep_best != COUNTS else None),
    ]
    return [(setting, measure) for setting, measure in found if measure is not None]


def _reached(measure: Measure, state: State, target: float) -> bool:
    value = measure.of(state.result)
    return value is not None and (-value >= target if measure.higher else value <= target)


def _is_part(metric: str, name: str) -> bool:
    """Say whether `metric` is one number of a metric that has several, such as f1_score_0."""
    return metric.startswith(f"{name}_") and metric.removeprefix(f"{name}_").isdecimal()


def _name(metric: Any) -> str:
    """Return what Keras calls a metric that was named, defined or made."""
    return metric if isinstance(metric, str) else str(getattr(metric, "name", None) or getattr(metric, "__name__", ""))


def _of_keras(metric: Any) -> bool:
    return type(metric).__module__.startswith("keras.src.metrics")
