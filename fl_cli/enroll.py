"""`fl enroll`: on the server, make the tokens by which new clients come in, list them, take them back."""

import time
from pathlib import Path
from typing import Annotated

import typer

from fl_cli import options
from fl_cli.table import ago, print_json, seconds_of, table, until
from fl_common.trust import secret_files

enroll = typer.Typer(
    help="Let clients in: tokens that enrol new ones, and keys registered by hand.", no_args_is_help=True
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(enroll, name="enroll")


@enroll.command("token")
def token(
    uses: Annotated[int, typer.Option(min=1, help="How many clients it lets in.")] = 1,
    expires: Annotated[str, typer.Option(help="For how long: 30m, 1h, 7d.")] = "1h",
    label: options.Labels = None,
    file: Annotated[Path | None, typer.Option(help="Write the token here (mode 0600) in place of printing it.")] = None,
    store: options.Store = None,
) -> None:
    """Make a token for new clients and print it. It works at once, also while the server runs."""
    from fl_server.access import home_files
    from fl_server.access.client_records import parse_labels

    labels, seconds = parse_labels(label), seconds_of(expires, "--expires")
    entry = home_files.existing(options.home_of(store))
    made = home_files.enrolment_token(entry, uses=uses, seconds=seconds, labels=labels)
    typer.echo(f"token {made.identity}: good for {uses} client(s), for {expires}", err=True)
    if file is None:
        typer.echo(made.text)
    else:
        secret_files.write(file, made.text.encode() + b"\n")
        typer.echo(f"written to {file}", err=True)


@enroll.command("key")
def key(
    file: Annotated[Path, typer.Argument(help="Public key of a client or a flower-supernode: PEM, or OpenSSH's text.")],
    label: options.Labels = None,
    store: options.Store = None,
) -> None:
    """Register the public key FILE by hand: its holder comes in without a token."""
    from fl_server.access import home_files
    from fl_server.access.certificates import read_public
    from fl_server.access.client_records import parse_labels
    from fl_server.access.client_registry import Registry

    entry = home_files.existing(options.home_of(store))
    client = Registry(entry.home).add_key(read_public(file), parse_labels(label))
    typer.echo(f"registered client {client.identity}")


@enroll.command("list")
def list_(store: options.Store = None, as_json: options.Json = False) -> None:
    """List the tokens made so far. Their secrets are not kept, so they cannot be shown again."""
    from fl_server.access import home_files
    from fl_server.access.client_registry import Registry

    entry = home_files.existing(options.home_of(store))
    now = time.time()
    tokens = Registry(entry.home).tokens()
    if as_json:
        for each in tokens:
            print_json(
                {
                    "token": each.identity, "state": each.state(now), "used": each.used, "uses": each.uses,
                    "made": each.made, "expires": each.expires, "labels": dict(each.labels),
                }
            )  # fmt: skip
        return
    rows = [
        (each.identity, each.state(now), f"{each.used}/{each.uses}", ago(each.made, now), until(each.expires, now),
         options.spelled(each.labels))
        for each in tokens
    ]  # fmt: skip
    table(("token", "state", "used", "made", "expires", "labels"), rows, "no tokens; make one with `fl enroll token`")


@enroll.command("revoke")
def revoke(
    identity: Annotated[str, typer.Argument(metavar="TOKEN", help="Its id, as `fl enroll list` shows it.")],
    store: options.Store = None,
) -> None:
    """Let TOKEN admit nobody from now on. Who came in by it stays; see `fl clients revoke`."""
    from fl_server.access import home_files
    from fl_server.access.client_registry import Registry

    entry = home_files.existing(options.home_of(store))
    Registry(entry.home).revoke_token(identity)
    typer.echo(f"token {identity} is revoked")
