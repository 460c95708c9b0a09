"""`fl client`: one resident client of a server, with data of its own or a share of a task's."""

import logging
import os
from typing import Annotated

import typer

from fl_cli import options


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("client")(client)


def client(
    server: Annotated[
        str, typer.Option(envvar="FL_SERVER", help="The server's Fleet address, HOST:PORT.")
    ] = "127.0.0.1:9092",
    task: Annotated[
        str, typer.Option(envvar="FL_TASK", help="This client's own task; needed where it is not a built-in one.")
    ] = "",
    data: Annotated[
        str, typer.Option(envvar="FL_DATA", help="This client's own data: npz, csv, parquet, or a folder of images.")
    ] = "",
    label: Annotated[str, typer.Option(envvar="FL_LABEL", help="Label column of --data. (default: label)")] = "",
    ignore: Annotated[
        list[str] | None,
        typer.Option(envvar="FL_IGNORE", help="A column of --data that is no feature; may be given several times."),
    ] = None,
    data_dir: Annotated[
        str, typer.Option(envvar="FL_DATA_DIR", help="Folder of a built-in task's files. (default: a download)")
    ] = "",
    private_schema: Annotated[
        bool,
        typer.Option(
            "--private-schema",
            envvar="FL_PRIVATE_SCHEMA",
            help="Tell the server salted hashes in the place of the names of columns and classes.",
        ),
    ] = False,
    state: Annotated[
        str,
        typer.Option(
            envvar="FL_STATE",
            help="Directory of this client's key and of what `fl health` reads. (default: one below "
            "~/.parterre/clients that no other client uses)",
        ),
    ] = "",
    states: Annotated[
        str,
        typer.Option(
            envvar="FL_STATES",
            help="Where no --state is given: directory of several clients' state directories, of which this one takes "
            "the first that no other uses.",
        ),
    ] = "",
    pulse: Annotated[
        str, typer.Option(envvar="FL_PULSE", help="Directory of what `fl health` reads. (default: that of --state)")
    ] = "",
    token_file: Annotated[
        str,
        typer.Option(
            envvar="FL_ENROLL_TOKEN_FILE",
            help="File with an enrolment token; needed once. The token itself can be in FL_ENROLL_TOKEN.",
        ),
    ] = "",
    ca: Annotated[
        str,
        typer.Option(
            "--ca",
            "--root-certificates",
            envvar="FL_CA",
            help="PEM file to know the server by. (default: as the enrolment token says)",
        ),
    ] = "",
    insecure: options.Insecure = False,
    metrics_port: options.MetricsPort = 0,
    metrics_host: options.MetricsHost = "127.0.0.1",
) -> None:
    """Serve one client until SIGTERM or Ctrl-C. It reconnects for ever, and runs only code of this machine."""
    from fl_client.process import ClientOptions, serve

    token = os.environ.pop("FL_ENROLL_TOKEN", "")  # no child of this process needs it
    serve(
        ClientOptions(
            server=server,
            task=task,
            data=data,
            label=label,
            ignore=tuple(ignore or ()),
            data_dir=data_dir,
            private_schema=private_schema,
            schema_secret=os.environ.pop("FL_SCHEMA_SECRET", ""),
            state=state,
            states=states,
            pulse=pulse,
            ca=ca,
            token=token,
            token_file=token_file,
            insecure=insecure,
            metrics_host=metrics_host,
            metrics_port=metrics_port,
        )
    )
    logging.shutdown()
    os._exit(0)  # all is said and closed: taking TensorFlow apart would take seconds, of those that a stop has
