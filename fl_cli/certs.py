"""`fl certs`: the server's CA and certificate: make them, show them."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fl_cli import options
from fl_cli.server_options import Authority, Certificate, Key, names_of
from fl_cli.table import print_json

if TYPE_CHECKING:
    from fl_server.access.certificates import Files

certs = typer.Typer(help="The server's CA and certificate: make them, show them.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(certs, name="certs")


@certs.command("init")
def init(
    name: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="DNS-OR-IP", envvar="FL_SERVER_NAMES", help="What clients call the server by."),
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="Lifetime of the server certificate.")] = 90,
    ca_days: Annotated[int, typer.Option(min=1, help="Lifetime of the CA, where it is made now.")] = 3650,
    new_ca: Annotated[
        bool, typer.Option("--new-ca", help="Make another CA: then every client needs a new token.", show_default=False)
    ] = False,
    certificate: Certificate = None,
    key: Key = None,
    ca: Authority = None,
    store: options.Store = None,
) -> None:
    """Make a CA, where the store has none, and a new server certificate. A running server takes it at once.

    With --certificate, --key and --ca nothing is made: these are checked, and noted for the commands beside the server.
    """
    from fl_server.access import certificates, home_files, own_certificates
    from fl_server.access.authority import normal
    from fl_server.access.certificates import LOCAL_NAMES
    from fl_server.access.home_files import own_names

    home = options.home_of(store)
    if (own := home_files.given(certificate, key, ca)) is not None:
        _tell(home_files.prepare(home, files=own).files, certificates.describe(own.certificate).names)
        return
    names = names_of(name) or own_names("0.0.0.0")  # noqa: S104 - asks for this machine's names; nothing listens
    wanted = list(dict.fromkeys(map(normal, [*names, *LOCAL_NAMES])))
    files = own_certificates.init(home, wanted, days=days, ca_days=ca_days, new_ca=new_ca)
    _tell(files, wanted)


def _tell(files: "Files", names: Sequence[str]) -> None:
    from fl_server.access import certificates

    typer.echo(f"CA           {files.ca}")
    typer.echo(f"certificate  {files.certificate}, for {', '.join(names)}")
    typer.echo(f"             until {certificates.day(certificates.describe(files.certificate).ends)}")


@certs.command("show")
def show(
    file: Annotated[
        Path | None, typer.Argument(help="A certificate. (default: those of the server in --store)")
    ] = None,
    store: options.Store = None,
    as_json: options.Json = False,
) -> None:
    """Show for which names the certificates are, and until when."""
    from fl_server.access import certificates, home_files

    if file is not None:
        wanted = {"certificate": file}
    else:
        files = home_files.existing(options.home_of(store)).files
        wanted = {"ca": files.ca, "server": files.certificate}
    for what, path in wanted.items():
        found = certificates.describe(path)
        left = (found.ends - datetime.datetime.now(datetime.UTC)).total_seconds() / 86_400
        if as_json:
            print_json(
                {
                    "what": what, "file": str(path), "subject": found.subject, "names": list(found.names),
                    "begins": found.begins.isoformat(), "ends": found.ends.isoformat(), "days_left": round(left, 1),
                    "fingerprint": found.fingerprint,
                }
            )  # fmt: skip
            continue
        typer.echo(f"{what}: {path}")
        typer.echo(f"  subject      {found.subject}")
        if found.names:
            typer.echo(f"  names        {', '.join(found.names)}")
        typer.echo(f"  until        {certificates.day(found.ends)} ({left:.0f} days)")
        typer.echo(f"  fingerprint  SHA-256 {found.fingerprint}")
