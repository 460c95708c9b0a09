"""`fl health`: whether the server or the client on this machine does its work; for HEALTHCHECK and for probes.

One line and an exit code, 0 or 1. It is asked often and everywhere, so it imports little.
"""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from fl_common.errors import ParterreError, SettingsError
from fl_common.processes import health_file
from fl_common.trust.untrusted_text import clean

SERVER_SECONDS = 15.0  # a server beats every 2 s
HEARD_SECONDS = 60.0  # a client hears from its server every 10 s
ALIVE_SECONDS = 180.0  # a client that waits for its server beats at every attempt
CALL_SECONDS = 4.0
HOME = ".superlink"
ANY = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - called, not listened on

State = Annotated[Path | None, typer.Option(envvar="FL_STATE", help="The client's state directory.")]
PulseDirectory = Annotated[
    Path | None, typer.Option("--pulse", envvar="FL_PULSE", help="The client's --pulse, where it has one.")
]
Store = Annotated[Path, typer.Option(envvar="FL_STORE", help="The server's store.")]
Alive = Annotated[bool, typer.Option("--alive", help="Only whether the client works, whatever its server does.")]


class Unhealthy(ParterreError):  # noqa: N818
    """Not healthy, and why."""


def register(app: typer.Typer) -> None:
    """Add `fl health server` and `fl health client`."""
    group = typer.Typer(name="health", help="Say whether the server or the client of this machine is well.")
    group.command("server")(server)
    group.command("client")(client)
    app.add_typer(group)


def server(store: Store = Path("runs")) -> None:
    """Healthy: `fl server` is there, and its Fleet API answers a call, over TLS where it has it. Exits with 0 or 1."""
    found = health_file.read(store / HOME)
    _fresh(found, SERVER_SECONDS)
    if found.state != "up":
        raise Unhealthy(f"the server is not up ({found.state}): {found.detail}")
    typer.echo(f"healthy: Fleet at {found.address} answers{_call(found)}; {found.detail}")


def client(state: State = None, pulse_directory: PulseDirectory = None, alive: Alive = False) -> None:
    """Healthy: the client is in and heard from its server in the last minute. Exits with 0 or 1."""
    place = pulse_directory or state
    if place is None:
        raise SettingsError("name the client's state directory: --state DIR, or FL_STATE; or its --pulse, or FL_PULSE")
    found = health_file.read(place)
    _fresh(found, ALIVE_SECONDS)
    if alive:
        typer.echo(f"alive: {found.state}; {found.detail}")
        return
    silence = found.silence(health_file.Now.here())
    if found.state != "joined":
        raise Unhealthy(f"the client is not in ({found.state}): {found.detail}")
    if silence > HEARD_SECONDS:
        raise Unhealthy(f"the client last heard from its server {silence:.0f} s ago; {found.detail}")
    typer.echo(f"healthy: {found.detail}; heard from it {silence:.0f} s ago")


def _fresh(found: health_file.Health, limit: float) -> None:
    age = found.age(health_file.Now.here())
    if age > limit:
        raise Unhealthy(
            f"nothing was heard of the process for {age:.0f} s; its last word: {found.state}, {found.detail}"
        )


def _call(found: health_file.Health) -> str:
    """Call Fleet as somebody who is not known: any status that comes back is an answer. Raises Unhealthy."""
    import grpc

    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    host, _, port = found.address.rpartition(":")
    with _channel(grpc, ANY.get(host, host), port, found.authority) as channel:
        try:
            channel.unary_unary("/flwr.proto.Fleet/PullMessages")(b"", timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise Unhealthy(f"Fleet at {found.address} does not answer: {clean(error.details())}") from None
    return " over TLS" if found.authority else " without TLS"


def _channel(grpc: Any, host: str, port: str, authority: str) -> Any:
    if not authority:
        return grpc.insecure_channel(f"{host}:{port}")
    try:
        credentials = grpc.ssl_channel_credentials(Path(authority).read_bytes())
        options = [("grpc.ssl_target_name_override", _name(host, int(port)))]
    except OSError as error:
        raise Unhealthy(f"Fleet at {host}:{port} does not answer: {error}") from None
    return grpc.secure_channel(f"{host}:{port}", credentials, options)


def _name(host: str, port: int) -> str:
    """Return a name that the server's certificate carries: whom it is for matters to clients, here it must be valid."""
    import ssl

    from cryptography import x509

    certificate = x509.load_pem_x509_certificate(
        ssl.get_server_certificate((host.strip("[]"), port), timeout=CALL_SECONDS).encode()
    )
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return str(next(iter(names)).value)
