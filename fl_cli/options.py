"""The options that several commands share, and how they become one Settings object."""

import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fl_common.errors import SettingsError
from fl_common.settings import schema as settings_
from fl_common.settings.schema import Settings
from fl_common.tasks import user_modules
from fl_common.tasks.builtin import BUILT_IN as TASKS

if TYPE_CHECKING:
    from fl_server.store.runs import Run

AVERAGING = ("fedavg", "fedprox", "fedavgm", "fedadam", "fedyogi", "fedadagrad")
ROBUST = ("median", "trimmedmean", "krum", "multikrum", "bulyan", "rfa", "normclipping", "centeredclipping")
STRATEGIES = (*AVERAGING, *ROBUST)  # known without importing Flower

HOME = ".superlink"  # below a server's store
INSECURE = (
    "warning: --insecure: connections are plaintext, and whoever reaches the ports is let in, to train and to start "
    "runs. Only for a network of your own."
)

Task = Annotated[str | None, typer.Option(help="digits, mnist, fashion_mnist, cifar10, ./my_task.py or my_pkg.task")]
Rounds = Annotated[int | None, typer.Option(min=1, help="Rounds to run. (default: 10)")]
Strategy = Annotated[str | None, typer.Option(help=f"{', '.join(STRATEGIES)}, module:Class or ./my.py:Class.")]
Fraction = Annotated[float | None, typer.Option(help="Share of the clients asked to train in a round. (default: 1)")]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random. (default: 0)")]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting, or an argument of the strategy. Repeatable."),
]
Config = Annotated[Path | None, typer.Option(help="TOML file of settings.")]
Out = Annotated[Path | None, typer.Option(help="Directory of the run. (default: a new one under --store)")]
Store = Annotated[Path | None, typer.Option(envvar="FL_STORE", help="Directory that holds the runs. (default: runs)")]
MetricsPort = Annotated[
    int,
    typer.Option(min=0, max=65535, envvar="FL_METRICS_PORT", help="Serve Prometheus metrics on this port. 0: do not."),
]
MetricsHost = Annotated[str, typer.Option(envvar="FL_METRICS_HOST", help="Address that the metrics are served on.")]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="No TLS and no authentication. Only for a network of your own.")
]
ControlAddress = Annotated[str, typer.Option(envvar="FL_CONTROL", help="The server's Control address, HOST:PORT.")]
ControlCa = Annotated[
    Path | None, typer.Option(envvar="FL_CONTROL_CA", help="The server's CA. (default: the one in --store)")
]
ControlCredential = Annotated[
    Path | None,
    typer.Option(
        envvar="FL_CONTROL_CREDENTIAL", help="File with the credential of Control. (default: the one in --store)"
    ),
]
CONTROL = "127.0.0.1:9093"
Labels = Annotated[
    list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="Label of the clients. Repeatable.")
]
AllowPartial = Annotated[
    bool,
    typer.Option(
        "--allow-partial", help="Exit with 0, not 3, where a round had less than half of the clients that it asked."
    ),
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Run the code of a run that somebody else made, or that was changed.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]


def gather(
    flags: Mapping[str, Any],
    *,
    assignments: Iterable[str] | None = None,
    config: Path | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Settings:
    """Return the settings: defaults < TOML file < environment < flags < `--set`.

    `defaults` are a command's own and yield to all the others. A `--set` key that is no setting but an argument of the
    strategy's constructor becomes one. The path of a task's file becomes absolute.
    """
    given: dict[str, Any] = dict(defaults or {})
    if config is not None:
        given |= settings_.read_toml(config)
    given |= settings_.from_environment(os.environ)
    given |= {
        key: str(value) if isinstance(value, Path) else value for key, value in flags.items() if value is not None
    }
    given |= _for_strategy(settings_.assigned(assignments or ()), given)
    settings = settings_.parse(given)
    return settings.model_copy(update={"task": absolute(settings.task), "strategy": absolute(settings.strategy)})


def absolute(name: str) -> str:
    """Return a task or strategy with its file's path made absolute: a run's processes are started in other folders."""
    path, colon, attribute = name.rpartition(":") if ".py:" in name else (name, "", "")
    return f"{Path(path).expanduser().resolve()}{colon}{attribute}" if path.endswith(".py") else name


def warn_if(insecure: bool) -> None:
    """Say what --insecure means, each time."""
    if insecure:
        typer.echo(INSECURE, err=True)


def say_set_aside(run: "Run") -> None:
    """Say where the run that failed in a new one's directory is now."""
    if run.set_aside is not None:
        typer.echo(f"note: a run failed in {run.directory} before its first round; it is in {run.set_aside}", err=True)


def store_or_default(store: Path | None) -> Path:
    """Return the directory of the server's runs, absolute."""
    return (store or Path(os.environ.get("FL_STORE", "runs"))).resolve()


def home_of(store: Path | None) -> Path:
    """Return the directory below a store that holds what says who may come in."""
    return store_or_default(store) / HOME


def check_names(settings: Settings) -> None:
    """Raise TaskError or StrategyError where task or strategy cannot be had, before anything is started for them."""
    if settings.task not in TASKS:
        user_modules.check(settings.task)
    if settings.strategy not in STRATEGIES or settings.strategy_args:
        import strategies

        strategies.make(settings)


def _for_strategy(assigned: dict[str, str], given: Mapping[str, Any]) -> dict[str, Any]:
    unknown = [key for key in assigned if key not in Settings.model_fields and not key.startswith("strategy.")]
    if not unknown:
        return assigned
    import strategies

    name = str(assigned.get("strategy", given.get("strategy", "fedavg")))
    taken = strategies.argument_names(name)
    for key in unknown:
        if key not in taken:
            raise SettingsError(_neither(key, name, taken, chosen="strategy" in {*assigned, *given}))
    return {f"strategy.{key}" if key in unknown and key in taken else key: value for key, value in assigned.items()}


def _neither(key: str, strategy: str, taken: set[str], *, chosen: bool) -> str:
    """Return the message for a key that is no setting and no argument of the strategy, `chosen` or the default."""
    if not chosen:
        return settings_.unknown_key(key)
    near = difflib.get_close_matches(key, [*taken, *Settings.model_fields], n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]}?" if near else ""
    name = strategy.rpartition("/")[2]
    return f"{key!r} is neither a setting nor an argument of {name}.{hint} {name} takes: {', '.join(sorted(taken))}."


def spelled(labels: Mapping[str, str]) -> str:
    """Return labels as they are given: site=berlin."""
    return " ".join(f"{key}={value}" for key, value in labels.items())
