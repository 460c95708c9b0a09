"""Every setting of every command: one frozen object, parsed once from TOML, environment, flags or Flower's run config.

Order, later wins: defaults < TOML file < environment (`FL_ROUNDS=5`) < flags and `--set key=value`.
"""

import difflib
import json
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fl_common.errors import SettingsError
from fl_common.settings import best_metric, label_selectors, metric_ranges

ENVIRONMENT_PREFIX = "FL_"

SIMULATED = ("hostile", "label_noise", "fleet_")  # what a deployed run refuses: how these settings begin

NAME = r"^([A-Za-z0-9][A-Za-z0-9._-]{0,63})?$"  # a directory's, nowhere but in the store

Scalar = bool | int | float | str
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Seconds = Annotated[float, Field(gt=0)]


class Settings(BaseModel):
    """A federation's settings. Fields are grouped by who reads them; every one is a scalar, so that it fits a flag."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    # What is learned
    task: str = Field("digits", description="built-in task (digits, mnist, fashion_mnist, cifar10), a path or a module")
    model: str = Field("", description="model of a built-in task: mlp, 2nn or cnn; empty takes the task's own default")
    data_dir: str = Field("", description="directory of IDX files, for mnist and fashion_mnist, instead of a download")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of everything random")

    initial: str = Field(
        "",
        description="file of weights, where the run's server is, that a new run begins with: npz, keras or weights.h5",
    )
    initial_trusted: bool = Field(
        False, description="whoever made the file in initial is trusted, so that HDF5 may read .keras and .h5 files"
    )

    # How a shared data set is split
    partitions: int = Field(0, ge=0, description="number of partitions; 0: as many as there are clients")
    partitioning: Literal["iid", "dirichlet", "shards", "power_law", "natural"] = Field(
        "iid", description="how a shared data set is split over the clients"
    )
    alpha: float = Field(0.5, gt=0, description="Dirichlet concentration: small is uneven, large is even")
    classes_per_client: Count = Field(2, description="classes each client holds, for partitioning=shards")
    power: float = Field(1.2, gt=0, description="exponent of the power law of sizes, for partitioning=power_law")
    id_column: str = Field("", description="column of ids (a user, a shop), for partitioning=natural")
    validation_fraction: float = Field(0.2, ge=0, lt=1, description="share of a partition kept for evaluation")

    # Local training
    local_epochs: Count = Field(1, description="passes over the local data in a round")
    batch_size: Count = Field(32, description="examples in a local step")
    learning_rate: float = Field(0.0, ge=0, description="overrides the compiled model's learning rate; 0 keeps it")
    learning_rate_schedule: Literal["over_rounds", "each_round"] = Field(
        "over_rounds",
        description="whether a schedule of the learning rate, and the epoch that callbacks see, go on from round to "
        "round or begin anew in each",
    )
    mu: float = Field(0.0, ge=0, description="FedProx's proximal term; 0 is none")

    # The strategy
    strategy: str = Field(
        "fedavg",
        description="fedavg, fedprox, fedavgm, fedadam, fedyogi, fedadagrad; robust: median, trimmedmean, krum, "
        "multikrum, bulyan, rfa, normclipping, centeredclipping; or module:Class",
    )
    strategy_args: str = Field("", description="JSON object of further arguments of the strategy's constructor")
    server_learning_rate: float = Field(
        0.0, ge=0, description="of the server optimizer; 0 takes the strategy's default"
    )
    server_momentum: float = Field(0.9, ge=0, lt=1, description="of FedAvgM's server optimizer")
    beta_1: float = Field(0.9, ge=0, lt=1, description="first-moment decay of FedAdam and FedYogi")
    beta_2: float = Field(0.99, ge=0, lt=1, description="second-moment decay of FedAdam and FedYogi")
    tau: float = Field(1e-3, gt=0, description="degree of adaptivity of FedAdam, FedYogi and FedAdagrad (epsilon)")

    # Rounds
    rounds: Count = Field(10, description="rounds to run")
    fraction: Share = Field(1.0, description="share of the available clients asked to train in a round")
    clients_per_round: int = Field(0, ge=0, description="number asked to train in a round; 0 uses fraction")
    fraction_evaluate: float = Field(1.0, ge=0, le=1, description="share of the available clients asked to evaluate")
    over_selection: float = Field(
        1.0, ge=1, le=10, description="asks this many times as many clients, and takes the first that answer; 1 is off"
    )
    selection: Literal["random", "fair"] = Field(
        "random", description="who is asked to train: drawn at random, or those first whose last turn is longest ago"
    )
    where: str = Field("", description="labels that clients must have, such as site=berlin,tier!=test,gpu in (a, b)")
    min_clients: Count = Field(2, description="clients to wait for before a round starts")
    wait_seconds: float = Field(
        120.0, ge=0, description="time limit of that wait, then the run ends with an error; 0: as long as it takes"
    )
    deadline_seconds: Seconds = Field(600.0, description="time limit for the replies of one phase of a round")
    evaluate_deadline_seconds: float = Field(
        0.0, ge=0, description="time limit for the replies of an evaluation; 0: deadline_seconds"
    )
    quorum: Count = Field(1, description="good replies a round needs; fewer, and it is repeated with other clients")
    quorum_share: float = Field(
        0.0, ge=0, le=1, description="share of a round's clients whose good replies it needs, beside quorum"
    )
    max_repeats: int = Field(3, ge=0, description="times a round may be repeated before the run ends with an error")
    metric: str = Field(
        "",
        description="metric that counts for target_accuracy, patience and keep_best, as the model calls it, with :max "
        "or :min where its name does not say which is better; empty: accuracy for the target, the loss for the others",
    )
    target_accuracy: float = Field(
        0.0, ge=0, description="stop when the metric that counts has reached it; 0 never; above 1 with a metric only"
    )
    patience: int = Field(
        0, ge=0, description="stop after this many rounds in which the metric that counts did not get better; 0 never"
    )

    # What a reply may be
    max_examples: Count = Field(10_000_000, description="largest number of examples that a reply may claim")
    max_update_norm: float = Field(
        0.0, ge=0, description="largest L2 norm of a reply's difference from the model that was sent; 0: any"
    )
    metric_limits: str = Field("", description="ranges of metrics, such as loss=0:100,accuracy=0:1; empty: any number")
    max_reply_mb: float = Field(
        0.0, ge=0, description="largest reply, in MB; 0: twice what was sent to the client, and 4 MB"
    )
    aside_after: int = Field(
        3, ge=0, description="rejected replies in a row after which a client is set aside for a while; 0 never"
    )
    aside_rounds: Count = Field(2, description="rounds that it is set aside for, twice as many each further time")

    # Simulation
    engine: Literal["auto", "vectorized", "loop", "keras"] = Field(
        "auto", description="how simulated clients are trained; auto chooses by the model's layers and a short trial"
    )
    workers: int = Field(
        0,
        ge=0,
        description="parts of a cohort that are trained side by side, each on its share of the cores; 0: one a core",
    )
    memory_gb: float = Field(4.0, gt=0, description="memory that a cohort's training may take; larger ones are split")

    # Hostile clients of a simulation
    hostile: float = Field(0.0, ge=0, lt=1, description="share of the clients that are hostile, drawn from the seed")
    attack: Literal["sign_flip", "scale", "gaussian", "nan", "alie", "label_flip"] = Field(
        "sign_flip", description="what they do to their updates, or to their labels"
    )
    attack_scale: float = Field(0.0, ge=0, description="how strongly, in the attack's own terms; 0 takes its default")
    label_noise: float = Field(0.0, ge=0, le=1, description="share of every client's training labels that are wrong")

    # A simulated fleet
    fleet_speed: float = Field(
        0.0, ge=0, description="examples that the median client trains on in a second of fleet time; 0: any number"
    )
    fleet_speed_spread: float = Field(
        0.5, ge=0, le=5, description="sigma of the log-normal distribution of the clients' speeds"
    )
    fleet_download: float = Field(0.0, ge=0, description="Mbit/s that the median client receives; 0: any number")
    fleet_upload: float = Field(0.0, ge=0, description="Mbit/s that the median client sends; 0: any number")
    fleet_network_spread: float = Field(
        0.5, ge=0, le=5, description="sigma of the log-normal distribution of the clients' networks"
    )
    fleet_latency: float = Field(0.0, ge=0, description="seconds that a message is on its way beside its bytes")
    fleet_dropout: float = Field(
        0.0, ge=0, lt=1, description="share of the clients asked that drop out in the middle of their work"
    )
    fleet_peak: Share = Field(1.0, description="share of the clients that are there in the best hour of their day")
    fleet_trough: float = Field(
        1.0, ge=0, le=1, description="the same in the worst hour; more than fleet_peak counts as fleet_peak"
    )
    fleet_zones: float = Field(
        0.0, ge=0, le=24, description="hours over which the clients' days are spread; 24: around the globe"
    )

    # The run store
    name: str = Field(
        "", pattern=NAME, description="name of the run, and its directory in the store; at a server one name is one run"
    )
    store: str = Field("runs", description="directory that holds the runs")
    out: str = Field("", description="directory of this run; empty: a new one in the store")
    resume: bool = Field(False, description="go on from the newest checkpoint of the run in `out`")
    keep: Count = Field(3, description="checkpoints kept, newest first")
    keep_best: str = Field(
        "metric",
        description="metric whose best round is kept too: metric (the one that counts), loss, accuracy, NAME:max or "
        "NAME:min; empty: none",
    )
    disk_wait_seconds: float = Field(600.0, ge=0, description="time a run waits for room on a full disk; then it ends")
    tensorboard: bool = Field(True, description="write TensorBoard logs into the run's directory")
    plot: bool = Field(True, description="draw the run's plot when it ends")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.partitioning == "natural" and not self.id_column:
            raise ValueError("partitioning=natural needs id_column, the name of the column of ids")
        if 0 < self.partitions < self.min_clients:
            raise ValueError(
                f"min_clients must be at most partitions ({self.partitions}); got {self.min_clients}. "
                "A client holds one partition, so more could never take part"
            )
        if 0 < self.partitions < self.quorum:
            raise ValueError(f"quorum must be at most partitions ({self.partitions}); got {self.quorum}")
        if not self.hostile and (self.attack != "sign_flip" or self.attack_scale):
            raise ValueError(
                f"attack={self.attack} needs somebody to attack: set hostile, the share of hostile clients"
            )
        self.strategy_arguments()
        _readable(lambda: label_selectors.parse(self.where))
        _readable(lambda: metric_ranges.parse(self.metric_limits))
        _readable(lambda: best_metric.parse(self.metric, "metric"))
        _readable(self.measure_kept)
        if self.target_accuracy > 1 and not self.metric:
            raise ValueError(
                f"target_accuracy must be at most 1 where it is an accuracy; got {self.target_accuracy:g}. "
                "Name another metric with --set metric=NAME"
            )
        return self

    def strategy_arguments(self) -> dict[str, Any]:
        """Return `strategy_args` parsed. Raises ValueError where it is no JSON object."""
        return _json_object(self.strategy_args)

    def measure_counted(self) -> best_metric.Measure:
        """Return the metric that counts: the loss, where none was named."""
        return best_metric.parse(self.metric, "metric") or best_metric.LOSS

    def measure_of_target(self) -> best_metric.Measure:
        """Return the metric that target_accuracy is about."""
        return best_metric.parse(self.metric, "metric") or best_metric.ACCURACY

    def measure_kept(self) -> best_metric.Measure | None:
        """Return the metric whose best round is kept; None for none."""
        return self.measure_counted() if self.keep_best == best_metric.COUNTS else best_metric.parse(self.keep_best)

    def check_deployable(self) -> None:
        """Raise SettingsError where a setting is one that only a simulation can obey."""
        changed = self.difference()
        if names := [name for name in changed if name.startswith(SIMULATED)]:
            raise SettingsError(
                f"{' and '.join(names)} can only be simulated, and this is a deployed run. Leave it out, or use "
                "`fl simulate`."
            )

    def run_config(self) -> dict[str, Scalar]:
        """Return the settings as Flower's flat run config, as `[tool.flwr.app.config]` and `flwr run -c` hold them."""
        return dict(self.model_dump())

    def difference(self) -> dict[str, Scalar]:
        """Return the settings that are not at their defaults."""
        return dict(self.model_dump(exclude_defaults=True))


def parse(values: Mapping[str, Any], *, source: str = "settings") -> Settings:
    """Validate `values` into `Settings`.

    Keys may be written with dashes or underscores; strings are read as the field's type. `strategy.NAME` keys are
    gathered into `strategy_args`. Raises SettingsError that names the offending key, what was expected and what came.
    """
    flat = _gather_strategy_arguments({key.replace("-", "_"): value for key, value in values.items()})
    for key in flat:
        if key not in Settings.model_fields:
            raise SettingsError(unknown_key(key, source))
    try:
        return Settings.model_validate(flat)
    except ValidationError as error:
        raise SettingsError(_explain(error, source)) from None


def load(
    *,
    toml: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    assign: Iterable[str] = (),
) -> Settings:
    """Merge the four sources in their order. `assign` are the `key=value` strings of `--set`."""
    values: dict[str, Any] = {}
    if toml is not None:
        values |= read_toml(toml)
    values |= from_environment(os.environ if environment is None else environment)
    values |= {key: value for key, value in (flags or {}).items() if value is not None}
    return parse(values | assigned(assign))


def assigned(texts: Iterable[str]) -> dict[str, str]:
    """Return `key=value` strings as a dict. Raises SettingsError for one that is none."""
    return dict(_assignment(text) for text in texts)


def from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings found as `FL_<NAME>` variables. Other `FL_` variables belong to commands and are left."""
    names = {f"{ENVIRONMENT_PREFIX}{name.upper()}": name for name in Settings.model_fields}
    return {names[key]: value for key, value in environment.items() if key in names}


def read_toml(path: Path) -> dict[str, Any]:
    """Read a flat TOML file of settings; a `[strategy_arguments]` table holds the strategy's own arguments."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise SettingsError(
            f"settings file {path} does not exist. Name one that does, or leave --config out."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings file {path} cannot be read as TOML: {error}") from None
    return of_toml(text, path)


def of_toml(text: str, path: Path) -> dict[str, Any]:
    """Return the settings in the text of a TOML file, as `read_toml` does."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"settings file {path} cannot be read as TOML: {error}") from None
    except RecursionError:
        raise SettingsError(f"settings file {path} cannot be read as TOML: it is nested too deep") from None
    table = content.pop("strategy_arguments", {})
    if not isinstance(table, dict):
        raise SettingsError(f"strategy_arguments in {path} must be a table, [strategy_arguments]; got {table!r}")
    return content | {f"strategy.{key}": value for key, value in table.items()}


def unknown_key(key: str, source: str = "settings") -> str:
    """Return the message for an unknown key, naming the nearest known one."""
    near = difflib.get_close_matches(key, Settings.model_fields, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(sorted(Settings.model_fields))}."
    return f"unknown setting {key!r} in {source}. {hint}"


def _assignment(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise SettingsError(f"--set takes key=value; got {text!r}")
    return key.strip().replace("-", "_"), value.strip()


def _gather_strategy_arguments(values: dict[str, Any]) -> dict[str, Any]:
    nested = {key.partition(".")[2]: values.pop(key) for key in list(values) if key.startswith("strategy.")}
    if not nested:
        return values
    try:
        known = _json_object(values.get("strategy_args") or "")
    except ValueError as error:
        raise SettingsError(str(error)) from None
    try:
        return values | {"strategy_args": json.dumps(known | {key: _literal(value) for key, value in nested.items()})}
    except (TypeError, ValueError) as error:
        raise SettingsError(f"strategy.{next(iter(nested))}=...: expected values that JSON holds; {error}") from None


def _json_object(text: Any) -> dict[str, Any]:
    """Return the JSON object in `text`; {} for "". Raises ValueError where it is none."""
    if text == "":
        return {}
    try:
        parsed = json.loads(text)
    except (TypeError, ValueError) as error:
        raise ValueError(f"strategy_args must be a JSON object; got {text!r}") from error
    if not isinstance(parsed, dict):
        raise ValueError(f"strategy_args must be a JSON object; got {text!r}")
    return parsed


def _readable(parse: Callable[[], object]) -> None:
    try:
        parse()
    except SettingsError as error:
        raise ValueError(str(error)) from None


def _literal(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _explain(error: ValidationError, source: str) -> str:
    lines = []
    for entry in error.errors():
        key = ".".join(str(part) for part in entry["loc"])
        message = entry["msg"].removeprefix("Value error, ")
        lines.append(f"{key}: {message}; got {entry['input']!r}. Set it with --set {key}=..." if key else message)
    return "; ".join(lines) if source == "settings" else f"{source}: " + "; ".join(lines)
