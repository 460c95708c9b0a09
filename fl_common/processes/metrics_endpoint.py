"""Where Prometheus fetches the metrics of a process: HTTP, `/metrics`, in a thread of its own."""

from prometheus_client import REGISTRY, CollectorRegistry, start_http_server

from fl_common.errors import NetworkError


def serve(host: str, port: int, registry: CollectorRegistry = REGISTRY) -> None:
    """Serve the metrics until the process ends. Raises NetworkError where the port cannot be had."""
    try:
        start_http_server(port, host, registry)
    except (OSError, OverflowError) as error:
        raise NetworkError(
            f"cannot serve metrics on {host}:{port}: {error}. Name another port with --metrics-port."
        ) from None
