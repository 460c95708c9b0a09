"""The command `fl`. Each command is a file beside this one; nothing heavy is imported before a command runs."""

import os
import signal
import sys
from collections.abc import Iterable, Sequence

import typer

from fl_common import __version__, private
from fl_common.errors import ParterreError

# Flower reads these when it is imported; child processes inherit them. Telemetry stays off in everything we start.
ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_LOG_LEVEL": "WARNING",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
COMMANDS = (
    *("up", "simulate", "server", "client", "run", "resume", "runs", "plot", "export"),
    *("certs", "enroll", "clients", "health"),
)
INTERRUPTED = 130

app = typer.Typer(
    name="fl",
    help="Federated learning for Keras models on Flower. Start with: fl up --task digits --clients 4",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        typer.echo(f"parterre {__version__}")
        raise typer.Exit


def register(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """Return the application with these commands registered."""
    from importlib import import_module

    for name in names:
        import_module(f"fl_cli.{name}").register(app)
    return app


def wanted(arguments: Sequence[str]) -> Sequence[str]:
    """Return the commands that arguments can mean: the one that they begin with, or all. A probe is asked often."""
    return arguments[:1] if arguments and arguments[0] in COMMANDS else COMMANDS


def main() -> None:
    """Run the command line: errors for a person go to stderr as one line, and the exit code says that there was one."""
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    private.leave_no_core()
    if os.getpid() == 1:  # of a container: signals have no default action there
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        register(wanted(sys.argv[1:]))()
    except ParterreError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
