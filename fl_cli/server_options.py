"""The options of `fl server`: each with its environment variable and its help."""

from pathlib import Path
from typing import Annotated

import typer

Host = Annotated[str, typer.Option(envvar="FL_HOST", help="Address that the Fleet API listens on; 0.0.0.0 for all.")]
FleetPort = Annotated[int, typer.Option(help="Port of the Fleet API, for clients.")]
ControlPort = Annotated[int, typer.Option(help="Port of the Control API, for `fl run` and `flwr`.")]
ControlHost = Annotated[str, typer.Option(help="Address that the Control API listens on.")]
AppioPort = Annotated[int, typer.Option(help="Port of the ServerAppIo API, on loopback.")]
Name = Annotated[
    list[str] | None,
    typer.Option(
        "--name",
        metavar="DNS-OR-IP",
        envvar="FL_SERVER_NAMES",
        help="What clients call this server by; its certificate is made for these names. Repeatable, or with "
        "commas. Where none is given and --host is for all: the machine's own name and address.",
    ),
]
Certificate = Annotated[
    Path | None, typer.Option(envvar="FL_CERTIFICATE", help="Your own certificate (PEM, with its chain).")
]
Key = Annotated[Path | None, typer.Option(envvar="FL_KEY", help="The private key of --certificate.")]
Authority = Annotated[Path | None, typer.Option(envvar="FL_CA", help="The CA that --certificate is of.")]
LostAfter = Annotated[
    float, typer.Option(envvar="FL_LOST_AFTER", min=1.0, help="Seconds of silence until a client counts as lost.")
]
ForgetAfter = Annotated[
    str,
    typer.Option(
        envvar="FL_FORGET_AFTER",
        help="Forget a client that was not heard of for so long (30d, 12h): to come back, its key needs a token again. "
        "0: never.",
    ),
]
MaxRestarts = Annotated[
    int,
    typer.Option(min=0, envvar="FL_MAX_RESTARTS", help="Starts in a row of what keeps falling, without a new round."),
]
AutoRun = Annotated[
    bool,
    typer.Option(
        "--auto-run",
        envvar="FL_AUTO_RUN",
        help="Start a run with the settings of the environment (FL_TASK, FL_ROUNDS, ...) where the store has none.",
    ),
]


def names_of(given: list[str] | None) -> list[str]:
    """Return the names of a repeatable option that also takes commas, as an environment variable has them."""
    return [name.strip() for each in given or [] for name in each.split(",") if name.strip()]
