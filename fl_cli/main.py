"""The command `fl`. Each command is a file beside this one; nothing heavy is imported before a command runs."""

import os
import signal
import sqlite3
import sys
from collections.abc import Iterable, Sequence

import typer

from fl_cli import moment  # noqa: F401  first of all: when the command began
from fl_cli.output import outlasting
from fl_common import __version__
from fl_common.errors import ParterreError
from fl_common.processes import environment
from fl_common.trust import secret_files
from fl_common.trust.untrusted_text import clean

COMMANDS = (
    *("up", "simulate", "server", "client", "run", "resume", "stop", "follow", "logs", "runs", "plot", "compare"),
    *("export", "trust", "check", "new", "certs", "enroll", "clients", "health"),
)
INTERRUPTED = 130
LONGEST = 10_000  # characters of an error
OTHERS_MAY_NOT_WRITE = 0o022

HELP = "Federated learning for Keras models on Flower. Start with: fl up --task digits --clients 4"


def _root(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        typer.echo(f"parterre {__version__}")
        raise typer.Exit


def register(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """Return a new application with these commands registered."""
    from importlib import import_module

    app = typer.Typer(name="fl", help=HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    app.callback(invoke_without_command=True)(_root)
    for name in names:
        import_module(f"fl_cli.{name}").register(app)
    return app


def wanted(arguments: Sequence[str]) -> Sequence[str]:
    """Return the commands that arguments can mean: the one that they begin with, or all. A probe is asked often."""
    return arguments[:1] if arguments and arguments[0] in COMMANDS else COMMANDS


def main() -> None:
    """Run the command line: errors for a person go to stderr as one line, and the exit code says that there was one."""
    with outlasting(next(iter(sys.argv[1:]), "")):
        _main()


def _main() -> None:
    os.umask(os.umask(OTHERS_MAY_NOT_WRITE) | OTHERS_MAY_NOT_WRITE)  # stores and runs, whatever the shell allows
    for sentence in environment.prepare():
        typer.echo(f"warning: {sentence}", err=True)
    secret_files.leave_no_core()
    if os.getpid() == 1:  # of a container: signals have no default action there
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        if sys.argv[1:2] not in (["health"], ["server"]):  # a probe is asked often; a server with runs serves them
            from fl_cli import variables

            variables.check(os.environ)
        register(wanted(sys.argv[1:]))()
    except ParterreError as error:
        typer.echo(f"error: {clean(error, most=LONGEST, lines=True)}", err=True)
        sys.exit(error.exit_code)
    except (OSError, sqlite3.Error) as error:  # of the disk: any start may meet a full one
        from fl_server.store.disk import whole_writes

        if not (text := whole_writes.told(error)):
            raise
        typer.echo(f"error: {text}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
