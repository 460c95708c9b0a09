"""`fl client`: one resident client of a server, with data of its own or a share of a task's."""

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
    root_certificates: Annotated[
        str, typer.Option(envvar="FL_ROOT_CERTIFICATES", help="PEM file to know the server by. None: no TLS.")
    ] = "",
    state: Annotated[str, typer.Option(envvar="FL_STATE", help="Directory that keeps what `fl health` reads.")] = "",
    metrics_port: options.MetricsPort = 0,
    metrics_host: options.MetricsHost = "127.0.0.1",
) -> None:
    """Serve one client until SIGTERM or Ctrl-C. It reconnects for ever, and runs only code of this machine."""
    from fl_client.process import ClientOptions, serve

    serve(
        ClientOptions(
            server=server,
            task=task,
            data=data,
            label=label,
            root_certificates=root_certificates,
            state=state,
            metrics_host=metrics_host,
            metrics_port=metrics_port,
        )
    )
